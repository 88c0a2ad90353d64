"""Golden files: what stands recorded, how it is compared, and how a change is accepted."""

from __future__ import annotations

import difflib
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden")
ACCEPT = "python scripts/write_pins.py"
SHOWN = 60
"""Lines of a difference that a failure shows; the whole of it is in the diff after accepting."""


def check(name: str, now: str) -> None:
    """Compare ``now`` with the golden file ``name``; raises ``AssertionError`` that shows the change."""
    path = GOLDEN / name
    then = path.read_text("utf-8") if path.exists() else ""
    if now == then:
        return
    lines = difflib.unified_diff(
        then.splitlines(), now.splitlines(), "pinned", "now", n=1, lineterm=""
    )
    difference = list(lines)
    more = len(difference) - SHOWN
    shown = [*difference[:SHOWN], *([f"… and {more} more lines"] if more > 0 else [])]
    raise AssertionError(
        f"tests/pins/golden/{name} says otherwise:\n"
        + "\n".join(shown)
        + f"\nIf this change is meant, accept it and commit the golden file: {ACCEPT} {name}"
    )


def write(name: str, now: str) -> bool:
    """Record ``now`` as the golden file ``name``; return whether it changed."""
    path = GOLDEN / name
    if path.exists() and path.read_text("utf-8") == now:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(now, "utf-8")
    return True

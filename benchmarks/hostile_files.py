"""Every file of the shared PDF, HWP and text sets against what is said of it.

Reads each in place through the child process that ingest uses, with ingest's own limits, and shows
what was expected, what was seen, how long it took and how large the child became. What is expected
stands in ``tests/data/hostile_files.json``. Exits 1 when a file gives something else.
Run: ``python benchmarks/hostile_files.py``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from common import ROOT, data_set, report, table

from ondol.core.types import ReadDocument
from ondol.documents.readers import IsolatedReader, ReadFailure, ReadItem, ReadLimits

EXPECTED = ROOT / "tests" / "data" / "hostile_files.json"
LIMITS = ReadLimits()


def expectation(wanted: dict[str, Any]) -> str:
    """Return what is expected, in words."""
    if "refused" in wanted:
        return f"refused: {wanted['refused']}"
    counted = [f"{wanted[what]} {what}" for what in ("pages", "documents") if what in wanted]
    return ", ".join(["read", *counted])


def troubles(wanted: dict[str, Any], items: list[ReadItem]) -> tuple[str, list[str]]:
    """Return what was seen, in words, and everything that is not as expected."""
    read = [item for item in items if isinstance(item, ReadDocument)]
    codes = sorted({item.error.code for item in items if isinstance(item, ReadFailure)})
    if not read:
        seen = f"refused: {'/'.join(codes)}"
        return seen, [] if seen == expectation(wanted) else [seen]
    text = "\n".join(item.text for item in read)
    counts = {"pages": len(read[0].pages), "documents": len(read)}
    wrong = ["read"] if "refused" in wanted else []
    wrong += [f"{counts[what]} {what}" for what in counts if wanted.get(what, counts[what]) != counts[what]]  # fmt: skip
    wrong += ["does not say what it should"] if wanted.get("says", "") not in text else []
    warnings = "\n".join(warning for item in read for warning in item.warnings)
    wrong += ["does not warn"] if wanted.get("warns", "") not in warnings else []
    kept = ", ".join(f"{counts[what]} {what}" for what in counts if what in wanted)
    return f"read, {kept}, {len(text):,} characters".replace(", ,", ","), wrong


def peak_mb(pid: int | None) -> float:
    """Return the child's peak memory since ``forget_peak``."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) for x in lines if x.startswith("VmHWM")), 0) / 1024


def forget_peak(pid: int | None) -> None:
    """Begin to count the child's peak memory anew."""
    if pid is not None:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def main() -> None:
    expected: dict[str, dict[str, dict[str, Any]]] = json.loads(EXPECTED.read_text("utf-8"))
    rows: list[tuple[Any, ...]] = []
    bad: dict[str, list[str]] = {}
    slowest = largest = 0.0
    with IsolatedReader() as reader:
        for folder, files in expected.items():
            for name, wanted in files.items():
                forget_peak(reader.child_pid)
                started = time.monotonic()
                items = list(reader.read(data_set(folder) / name, limits=LIMITS))
                seconds, memory = time.monotonic() - started, peak_mb(reader.child_pid)
                seen, wrong = troubles(wanted, items)
                if wrong:
                    bad[name] = wrong
                slowest, largest = max(slowest, seconds), max(largest, memory)
                rows.append((name, expectation(wanted), seen, "no: " + "; ".join(wrong) if wrong else "yes", round(seconds, 2), round(memory)))  # fmt: skip
    table(("file", "expected", "seen", "ok", "seconds", "child MB"), rows)
    report(
        {
            "files": len(rows),
            "as_expected": len(rows) - len(bad),
            "not_as_expected": bad,
            "slowest_seconds": slowest,
            "largest_child_mb": largest,
        }
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

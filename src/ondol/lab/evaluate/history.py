"""What evaluations have found, kept: one JSON line for each under ``<home>/evaluations.jsonl``.

Lines are appended whole and synced, so that a crash costs at most the line being written; a line
that is no JSON is passed over when reading. Knows nothing of what the figures mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ondol.core.errors import StoreError

NAME = "evaluations.jsonl"


def record(home: Path, kind: str, figures: Mapping[str, Any], *, at: float) -> None:
    """Append ``figures`` as of ``at`` (Unix seconds); raises ``StoreError`` where that fails."""
    moment = datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds")
    line = json.dumps({"at": moment, "kind": kind, **figures}, ensure_ascii=False) + "\n"
    file = home / NAME
    try:
        home.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as out:
            if out.tell() and not _ends_well(file):
                line = "\n" + line  # the line before was cut short: let it be the only one lost
            out.write(line.encode("utf-8", "backslashreplace"))
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written: {error.strerror}", hint="check the disk and its permissions"
        ) from None


def recorded(home: Path, *, last: int | None = None) -> list[dict[str, Any]]:
    """Return what was recorded, oldest first; only the ``last`` so many where that is given."""
    try:
        lines = (home / NAME).read_text("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return []
    found = [row for row in map(_row, lines) if row is not None]
    return found if last is None else found[-last:]


def _ends_well(file: Path) -> bool:
    with file.open("rb") as kept:
        kept.seek(-1, os.SEEK_END)
        return kept.read(1) == b"\n"


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None

"""What an interrupted search had measured, so that the next one goes on from there.

One JSON file a model under ``ONDOL_HOME/tune``; it counts only for the same key and the same plan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ondol.models.profile import ProfileKey
from ondol.models.tuning.candidates import Candidate, Round
from ondol.models.tuning.measured import Measured, from_row


class SearchState:
    """The rounds so far. ``plan`` is what else must be the same: texts, repeats, quickness."""

    def __init__(self, path: Path, *, key: ProfileKey, plan: str) -> None:
        self._path = path
        self._head: dict[str, Any] = {"key": asdict(key), "plan": plan}
        self._rounds: dict[str, dict[Candidate, Measured]] = _read(path, self._head)

    @property
    def count(self) -> int:
        """How many measurements there are."""
        return sum(len(found) for found in self._rounds.values())

    def known(self, name: Round) -> Mapping[Candidate, Measured]:
        """Return what the round has measured."""
        return self._rounds.get(name, {})

    def add(self, name: Round, one: Measured) -> None:
        """Remember a measurement, on disk too. A failure is forgotten: the next run tries again."""
        self._rounds.setdefault(name, {})[one.candidate] = one
        rounds = {
            name: [one.as_row() for one in found.values() if one.figures is not None]
            for name, found in self._rounds.items()
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_text(json.dumps({**self._head, "rounds": rounds}, ensure_ascii=False), "utf-8")
        os.replace(part, self._path)

    def discard(self) -> None:
        """Remove the file: the search has ended."""
        self._path.unlink(missing_ok=True)


def _read(path: Path, head: Mapping[str, Any]) -> dict[str, dict[Candidate, Measured]]:
    try:
        data = json.loads(path.read_text("utf-8"))
        if any(data[name] != value for name, value in head.items()):
            return {}
        return {
            name: {one.candidate: one for one in map(from_row, rows)}
            for name, rows in data["rounds"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}

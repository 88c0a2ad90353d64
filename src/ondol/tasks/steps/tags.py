"""``tags``: names the fields of law a case touches, from the provisions that were cited for it.

A tag is what the cited passages' documents say of themselves (their law, the chapter they stand in), so
every tag has its evidence. Parameters: ``of`` (result keys whose claims cite passages), ``keys``
(metadata, outermost first), ``limit``.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_run import TaskEvidence, TaskRun

_ORDINAL = re.compile(r"^제\s?\d+(?:의\d+)?\s?[편장절관]\s*")
_NOTE = re.compile(r"\s*<[^>]*>\s*$")


class TagsParameters(Parameters):
    """See the module."""

    of: tuple[str, ...] = ("provisions",)
    keys: tuple[str, ...] = ("law", "chapter")
    limit: int = Field(6, ge=1, le=50)
    into: str = "tags"


class Tags:
    """The step."""

    def __init__(self, parameters: TagsParameters, bench: StepContext) -> None:
        self._parameters = parameters

    async def run(self, run: TaskRun) -> TaskRun:
        """Add the tags of what ``run``'s claims cite."""
        found: dict[str, dict[str, Any]] = {}
        for evidence in self._cited(run):
            for key in self._parameters.keys:
                for name in names_in(str(evidence.metadata.get(key, ""))):
                    row = found.setdefault(name, {"tag": name, "count": 0, "evidence": []})
                    row["count"] += 1
                    row["evidence"].append(evidence.told())
        rows = sorted(found.values(), key=lambda row: (-row["count"], row["tag"]))
        return run.adding(**{self._parameters.into: rows[: self._parameters.limit]})

    def _cited(self, run: TaskRun) -> list[TaskEvidence]:
        """Return the passages that the claims cite, each once, in the order of their markers."""
        told = [
            one
            for key in self._parameters.of
            for row in run.result.get(key) or ()
            for one in row.get("evidence", ())
        ]
        return [evidence for evidence in run.evidence.values() if evidence.told() in told]


def names_in(value: str) -> list[str]:
    """Return the names in a path such as ``제3편 채권 > 제5장 불법행위``: its last part, bare."""
    last = value.rpartition(">")[2].strip()
    name = _NOTE.sub("", _ORDINAL.sub("", last)).strip()
    return [name] if name else []

"""Labelled items of a task from disk: what goes in, and what is known of what should come out.

JSON Lines, a line an item: ``{"id", "input": {…}, "expected": {…}}``; or a line a labelled text:
``{"text", "label", "group"}``, which are put together into inputs. What ``expected`` may hold is
``Expected``; a figure is reported where some item has what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ondol.core.errors import InvalidInput
from ondol.services.evaluation.datasets import read_jsonl
from ondol.services.tasks.declaration import Task
from ondol.text.language import detect

TOGETHER = 200
"""Labelled texts of one group and language that make one input."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectedAspect(_Part):
    """An aspect that is spoken of, and how."""

    aspect: str
    polarity: Literal["", "positive", "negative", "mixed"] = ""


class ExpectedBand(_Part):
    """The punishment that was given: ``prison`` in months or ``fine`` in won."""

    kind: Literal["prison", "fine"]
    amount: float = Field(ge=0)


class Expected(_Part):
    """What is known of the right result; every part may be missing.

    ``labels`` maps the ids of the texts to their labels; ``label`` is that of all of them.
    ``provisions`` are articles (``민법 제750조``) or documents of the collection.
    """

    label: str | None = None
    labels: Mapping[str, str] | tuple[str, ...] | None = None
    aspects: tuple[ExpectedAspect | str, ...] | None = None
    references: tuple[str, ...] | str = ()
    tags: tuple[str, ...] | None = None
    provisions: tuple[str, ...] | None = None
    outcome: str | None = None
    sentence_band: ExpectedBand | None = None
    fields: Mapping[str, tuple[str, ...]] | None = None

    def truths(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the label of each text of ``ids`` that has one."""
        if isinstance(self.labels, Mapping):
            return {name: label for name, label in self.labels.items() if name in set(ids)}
        if self.labels is not None:
            return dict(zip(ids, self.labels, strict=False))
        return dict.fromkeys(ids, self.label) if self.label is not None else {}

    def texts(self) -> tuple[str, ...]:
        """Return the references."""
        return (self.references,) if isinstance(self.references, str) else self.references


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One input with what is known of its result; ``rows`` lines of the file made it."""

    id: str
    input: Mapping[str, Any]
    expected: Expected
    rows: int = 1


def load_items(path: Path, task: Task, *, limit: int | None = None) -> list[TaskItem]:
    """Read the items of ``path``, at most its first ``limit`` lines.

    Raises ``NotFound``, and ``InvalidInput`` naming the line and the rule.
    """
    rows = read_jsonl(path, required=())[:limit]
    strange = next((n for n, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if strange is not None:
        raise InvalidInput(f"{path}, item {strange} is no object", hint="write {…} per line")
    if not rows:
        raise InvalidInput(f"{path} holds no items", hint="write a line an item", param="dataset")
    if "input" not in rows[0] and "text" in rows[0]:
        return _together(path, rows, task)
    return [_item(path, number, row) for number, row in enumerate(rows, start=1)]


def _item(path: Path, number: int, row: Mapping[str, Any]) -> TaskItem:
    if not isinstance(row.get("input"), Mapping):
        raise InvalidInput(
            f"{path}, item {number} has no input",
            hint='write {"id": …, "input": {…}, "expected": {…}}',
            param="dataset",
        )
    try:
        expected = Expected.model_validate(row.get("expected") or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("expected", *first["loc"]))
        raise InvalidInput(
            f"{path}, item {number}: {place}: {first['msg']}",
            hint=f"expected may hold {', '.join(Expected.model_fields)}",
            param="dataset",
        ) from None
    return TaskItem(str(row.get("id", number)), row["input"], expected)


def _together(path: Path, rows: Sequence[Mapping[str, Any]], task: Task) -> list[TaskItem]:
    """Put labelled texts together: those of one group and one language, ``TOGETHER`` at a time."""
    rule = task.entries
    if rule is None or rule.split != "none":
        raise InvalidInput(
            f"{path} holds labelled texts, {task.name} takes no list of texts",
            hint='write {"id": …, "input": {…}, "expected": {…}} per line',
            param="dataset",
        )
    groups: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("text"), str) or not isinstance(row.get("label"), str):
            raise InvalidInput(
                f"{path}, item {number} has no text or no label",
                hint='write {"text": …, "label": …} per line',
                param="dataset",
            )
        key = (str(row.get("group", "")), detect(row["text"]))
        groups.setdefault(key, []).append((str(number), row))
    items = []
    most = min(TOGETHER, task.limits.max_items)
    for group in groups.values():
        for start in range(0, len(group), most):
            part = group[start : start + most]
            given = {rule.field: [{"id": name, "text": row["text"]} for name, row in part]}
            labels = {name: row["label"] for name, row in part}
            items.append(
                TaskItem(f"lines {part[0][0]}…", given, Expected(labels=labels), rows=len(part))
            )
    return items

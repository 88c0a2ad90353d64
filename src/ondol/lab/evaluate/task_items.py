"""Labelled items of a task from disk: what goes in, and what is known of what should come out.

JSON Lines, a line an item: ``{"id", "input": {…}, "expected": {…}}``; or a line a labelled text:
``{"text", "label", "group"}``, which are put together into inputs. What ``expected`` may hold is
``Expected``; a figure is reported where some item has what it needs.

What the claims of a result rest on, looked up again: the input, and the collections it names.

Asks the store and the input only, never the services that made the result. Blocking: call it in a
thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ondol.core.errors import InvalidInput, NotFound
from ondol.lab.evaluate.datasets import read_jsonl
from ondol.language.language import detect
from ondol.packs.legal.references import Reference, references_of
from ondol.search.lookups import Lookups
from ondol.store.documents import DocumentStore
from ondol.tasks.declaration import Task
from ondol.tasks.steps.retrieve import RetrieveParameters

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


class ItemSources:
    """The sources of one run of ``task`` on ``input``."""

    def __init__(self, task: Task, input: Mapping[str, Any], store: DocumentStore) -> None:
        self._task = task
        self._input = input
        self._store = store

    @cached_property
    def entries(self) -> dict[str, str]:
        """The texts that came with the input, by the id that results call them by."""
        rule = self._task.entries
        rows = self._input.get(rule.field) if rule is not None else None
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            return {}
        found = {}
        for number, row in enumerate(rows, start=1):
            given = row if isinstance(row, Mapping) else {"text": row}
            found[str(given.get("id") or number)] = str(given.get("text", ""))
        return found

    @cached_property
    def collections(self) -> tuple[str, ...]:
        """The collections the run could look into."""
        names = [str(self._input.get("collection") or "")]
        for step in self._task.steps:
            if isinstance(step.parameters, RetrieveParameters):
                given = self._input.get(step.parameters.field) or step.parameters.collection
                names.append(str(given))
        return tuple(dict.fromkeys(name for name in names if name))

    def text_of(self, evidence: Any) -> str | None:
        """Return the words ``evidence`` stands for, ``None`` where it is not there as it says."""
        if isinstance(evidence, str):
            known = self.entries.get(evidence)
            return known if known is not None else self._document(evidence)
        start, end = int(evidence["start"]), int(evidence["end"])
        if evidence["document"] == "input":
            texts = [value for value in self._input.values() if isinstance(value, str)]
        else:
            texts = [self._document(str(evidence["document"])) or ""]
        quote = str(evidence["quote"])
        return quote if any(text[start:end] == quote for text in texts) else None

    def named(self, reference: Reference) -> list[str]:
        """Return the documents that ``reference`` names, in the first collection that has them."""
        lookups = Lookups(self._store)
        for collection in self.collections:
            try:
                rows = self._store.chunks(collection, lookups.of(collection, reference))
            except NotFound:
                continue
            if rows:
                return list(dict.fromkeys(row.document for row in rows))
        return []

    def metadata(self, document: str) -> Mapping[str, Any]:
        """Return what a document says of itself, nothing for one that is not there."""
        for collection in self.collections:
            try:
                return self._store.document(collection, document).metadata
            except NotFound:
                continue
        return {}

    @cached_property
    def given_names(self) -> frozenset[str]:
        """The keys of the laws and cases that the input itself names."""
        given = " ".join(value for value in self._input.values() if isinstance(value, str))
        return frozenset(key for one in references_of(given) for key in one.keys)

    def _document(self, name: str) -> str | None:
        for collection in self.collections:
            try:
                return self._store.document(collection, name).text
            except NotFound:
                continue
        return None

"""The many texts of an input: given inline, cut from one text, or read from a collection.

From a collection they come with the vectors that are stored there, so that nothing is embedded again.
Bounded by the task's limits; an empty text is left out with a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ondol.answers.directives import directs
from ondol.core.errors import InvalidInput, TextTooLong, TooManyItems
from ondol.language.sentences import split_sentences
from ondol.tasks.declaration import Task
from ondol.tasks.step_context import StepContext
from ondol.tasks.task_run import Entry, TaskRun

_NAMED = 10
"""Suspicious texts that a warning names; it counts all."""


def check_bounds(task: Task, input: Mapping[str, Any]) -> None:
    """Raise ``TooManyItems`` or ``TextTooLong`` where ``input`` is beyond the task's limits."""
    chars = _chars(input)
    if chars > task.limits.max_chars:
        raise TextTooLong(
            f"the input has {chars:,} characters, {task.name} takes {task.limits.max_chars:,}",
            hint="send less text, or raise the task's limits.max_chars in a pack of your own",
            param="input",
        )
    rule = task.entries
    value = input.get(rule.field) if rule is not None else None
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > task.limits.max_items
    ):
        raise TooManyItems(
            f"{rule.field if rule else 'input'} has {len(value):,} items, {task.name} takes "
            f"{task.limits.max_items:,}",
            hint="send fewer, or raise the task's limits.max_items in a pack of your own",
            param="input",
        )


async def with_entries(run: TaskRun, bench: StepContext) -> TaskRun:
    """Return ``run`` with the entries of its input; raises ``InvalidInput`` where there are none."""
    rule = run.task.entries
    if rule is None:
        return run
    if rule.split == "sentences":
        entries = _sentences(str(run.input.get(rule.field, "")), rule.marker)
    elif run.input.get("collection"):
        run, entries = await _stored(run, bench, rule.marker)
    else:
        entries = _given(run.input.get(rule.field) or (), rule.marker)
    kept = tuple(entry for entry in entries if entry.text.strip())
    if not kept:
        raise InvalidInput(
            f"the input holds no text: {rule.field} is empty",
            hint=f"send {rule.field}, or a collection and a filter",
            code="no_entries",
            param=rule.field,
        )
    if len(kept) < len(entries):
        run = run.warned(f"{len(entries) - len(kept)} empty texts were left out")
        run = replace(run, vectors=_without(run, entries))
    kept = tuple(replace(entry, suspicious=directs(entry.text)) for entry in kept)
    if suspicious := [entry.marker for entry in kept if entry.suspicious]:
        run = run.warned(
            f"{len(suspicious)} texts read like orders to the machine, check what rests on them: "
            + ", ".join(suspicious[:_NAMED])
        )
    return replace(run, entries=kept)


def _without(run: TaskRun, entries: Sequence[Entry]) -> Any:
    if run.vectors is None:
        return None
    return run.vectors[[i for i, entry in enumerate(entries) if entry.text.strip()]]


def _given(rows: Sequence[Any], marker: str) -> list[Entry]:
    """Return the rows as entries; one without an id is called by its place."""
    found: list[Entry] = []
    for number, row in enumerate(rows, start=1):
        text = row if isinstance(row, str) else str(row.get("text", ""))
        name = "" if isinstance(row, str) else str(row.get("id", ""))
        found.append(Entry(id=name or str(number), text=text, marker=f"{marker}{number}"))
    return found


def _sentences(text: str, marker: str) -> list[Entry]:
    return [
        Entry(
            id=f"{start}-{end}",
            text=text[start:end],
            marker=f"{marker}{number}",
            start=start,
            end=end,
        )
        for number, (start, end) in enumerate(split_sentences(text), start=1)
    ]


async def _stored(run: TaskRun, bench: StepContext, marker: str) -> tuple[TaskRun, list[Entry]]:
    name = str(run.input["collection"])
    passages = bench.services.store.passages
    rows = await asyncio.to_thread(
        passages.entries, name, filter=run.input.get("filter"), limit=run.task.limits.max_items + 1
    )
    if len(rows) > run.task.limits.max_items:
        raise TooManyItems(
            f"{name} has more than {run.task.limits.max_items:,} such texts, the limit of "
            f"{run.task.name}",
            hint="give a narrower filter",
            param="filter",
        )
    entries = [
        Entry(id=row.document, text=row.text, marker=f"{marker}{number}")
        for number, row in enumerate(rows, start=1)
    ]
    kept = await asyncio.to_thread(bench.services.store.collection, name)
    if rows and kept.embedder == bench.services.embedding.model:
        run = replace(run, vectors=np.stack([row.vector for row in rows]))
    return run, entries


def _chars(value: Any) -> int:
    """Return the characters of all texts in a JSON value; bounded by the value itself."""
    total = 0
    todo: list[Any] = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            total += len(one)
        elif isinstance(one, Mapping):
            todo += one.values()
        elif isinstance(one, Sequence):
            todo += one
    return total

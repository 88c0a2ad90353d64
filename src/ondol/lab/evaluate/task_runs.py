"""Runs a task over labelled items, and beside it the baselines, one after the other.

Item by item (several items at once where that is asked for), and who is first changes with every item,
so that neither profits from what the other left in caches. A run that fails is kept with its reason.
Owns no model.

Whether the claims of a result are carried by what they cite, checked anew. Blocking: asks sources.

A claim is a row of the result under a key that the task's ``verify`` steps check. It is supported where
everything it cites is there, word for word, and cites something at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ondol.answers.features import coverage, features, numbers, union
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import OndolError
from ondol.core.request_terms import RequestTerms
from ondol.core.types import OnStep
from ondol.lab.evaluate.task_items import ItemSources, TaskItem
from ondol.tasks.declaration import Task
from ondol.tasks.steps.verify import VerifyParameters
from ondol.tasks.task_service import TaskResult, TaskService

LANE = "batch"
"""It promises no first token, so that no run is refused for being long."""


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """One run of one item: its result, or the code of what stopped it, after ``seconds``."""

    item: TaskItem
    result: TaskResult | None
    error: str
    seconds: float


Done = Sequence[tuple[EvaluationRun, TaskResult]]
"""The runs that gave a result, with it."""

Figures = dict[str, Any]


async def run_all(
    tasks: TaskService,
    variants: Mapping[str, Task],
    items: Sequence[TaskItem],
    *,
    told: OnStep | None = None,
    clock: Clock | None = None,
    at_once: int = 1,
) -> dict[str, list[EvaluationRun]]:
    """Return, by variant, one run per item, in the order of ``items``.

    ``told`` hears (runs done, runs in all, variant) before each run. ``at_once`` items are run side by
    side; their seconds then hold what they waited for each other.
    """
    clock = clock or SystemClock()
    names = list(variants)
    found: list[dict[str, EvaluationRun]] = [{} for _ in items]
    free = asyncio.Semaphore(at_once)
    begun = 0

    async def run_item(at: int, item: TaskItem) -> None:
        nonlocal begun
        async with free:
            for name in names[at % len(names) :] + names[: at % len(names)]:
                if told is not None:
                    told(begun, len(items) * len(names), name)
                begun += 1
                found[at][name] = await _run(tasks, variants[name], item, clock)

    async with asyncio.TaskGroup() as group:
        for at, item in enumerate(items):
            group.create_task(run_item(at, item))
    return {name: [one[name] for one in found] for name in names}


async def _run(tasks: TaskService, task: Task, item: TaskItem, clock: Clock) -> EvaluationRun:
    before = clock.monotonic()
    try:
        result = await tasks.run(task, item.input, terms=RequestTerms(lane=LANE))
    except OndolError as error:
        return EvaluationRun(item, None, error.code, clock.monotonic() - before)
    return EvaluationRun(item, result, "", clock.monotonic() - before)


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one result. ``generated`` counts those that were dropped, too.

    ``support`` is, for each that says something in words, the share of them its evidence holds.
    """

    generated: int
    kept: int
    supported: int
    support: tuple[float, ...]


def claim_keys(task: Task) -> tuple[str, ...]:
    """Return the keys of a task's result that hold claims."""
    keys = [
        key
        for step in task.steps
        if isinstance(step.parameters, VerifyParameters)
        for key in step.parameters.claims
    ]
    return tuple(dict.fromkeys(keys))


def rows_of(result: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (key, row) for every object under ``keys`` of a result."""
    for key in keys:
        value = result.get(key)
        for row in value if isinstance(value, list) else [value]:
            if isinstance(row, dict):
                yield key, row


def said_in(row: Mapping[str, Any]) -> str:
    """Return what a row says in words."""
    return " ".join(str(row[key]) for key in ("name", "text", "reason") if row.get(key))


def judged_claims(
    result: Mapping[str, Any], keys: Sequence[str], dropped: int, sources: ItemSources
) -> Claims:
    """Return how the claims of one result stand; ``dropped`` were taken out of it before."""
    kept = supported = 0
    support: list[float] = []
    for _, row in rows_of(result, keys):
        kept += 1
        texts = [sources.text_of(one) for one in row.get("evidence") or ()]
        found = [text for text in texts if text is not None]
        said = str(row.get("text") or "")
        carried = bool(found) and len(found) == len(texts)
        if carried and said:
            carried = numbers(said) <= frozenset().union(*map(numbers, found))
        supported += carried
        if said:
            support.append(coverage(features(said), union(map(features, found))))
    return Claims(kept + dropped, kept, supported, tuple(support))

"""Runs a task over labelled items, and beside it the baselines, one after the other.

Item by item (several items at once where that is asked for), and who is first changes with every item,
so that neither profits from what the other left in caches. A run that fails is kept with its reason.
Owns no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import OndolError
from ondol.core.terms import Terms
from ondol.services.evaluation.tasks.items import TaskItem
from ondol.services.tasks.declaration import Task
from ondol.services.tasks.service import TaskResult, TaskService

LANE = "batch"
"""It promises no first token, so that no run is refused for being long."""

Told = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One run of one item: its result, or the code of what stopped it, after ``seconds``."""

    item: TaskItem
    result: TaskResult | None
    error: str
    seconds: float


Done = Sequence[tuple[TaskRun, TaskResult]]
"""The runs that gave a result, with it."""

Figures = dict[str, Any]


async def run_all(
    tasks: TaskService,
    variants: Mapping[str, Task],
    items: Sequence[TaskItem],
    *,
    told: Told | None = None,
    clock: Clock | None = None,
    at_once: int = 1,
) -> dict[str, list[TaskRun]]:
    """Return, by variant, one run per item, in the order of ``items``.

    ``told`` hears (runs done, runs in all, variant) before each run. ``at_once`` items are run side by
    side; their seconds then hold what they waited for each other.
    """
    clock = clock or SystemClock()
    names = list(variants)
    found: list[dict[str, TaskRun]] = [{} for _ in items]
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


async def _run(tasks: TaskService, task: Task, item: TaskItem, clock: Clock) -> TaskRun:
    before = clock.monotonic()
    try:
        result = await tasks.run(task, item.input, terms=Terms(lane=LANE))
    except OndolError as error:
        return TaskRun(item, None, error.code, clock.monotonic() - before)
    return TaskRun(item, result, "", clock.monotonic() - before)

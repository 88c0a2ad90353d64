"""A task evaluated on labelled items, with its baselines beside it: runs, figures, differences."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ondol.core.clock import Clock
from ondol.services.evaluation.tasks.baselines import Baseline, baseline_of
from ondol.services.evaluation.tasks.claims import claim_keys
from ondol.services.evaluation.tasks.figures import aspect_coverage, figures_of
from ondol.services.evaluation.tasks.items import TaskItem
from ondol.services.evaluation.tasks.runs import Figures, TaskRun, Told, run_all
from ondol.services.tasks.declaration import Task
from ondol.services.tasks.service import TaskService
from ondol.store.documents import DocumentStore

OURS = "task"
_NO_DIFFERENCE = ("items", "runs", "labelled", "seconds")


@dataclass(frozen=True, slots=True)
class TaskEvaluation:
    """The figures and the runs of a task and of its baselines, by name; ``OURS`` is the task."""

    figures: Mapping[str, Figures]
    runs: Mapping[str, Sequence[TaskRun]]
    coverage: Mapping[str, float | None]
    model: str

    def as_json(self) -> dict[str, Any]:
        """Return the figures flat, and each baseline's with the differences (ours less theirs)."""
        ours = self.figures[OURS]
        others = {
            name: {
                **figures,
                "aspect_coverage_by_task": self.coverage.get(name),
                "differences": differences(ours, figures),
            }
            for name, figures in self.figures.items()
            if name != OURS
        }
        return {"model": self.model, **ours, **({"baselines": others} if others else {})}


async def evaluate_task(
    tasks: TaskService,
    task: Task,
    items: Sequence[TaskItem],
    *,
    store: DocumentStore,
    baselines: Sequence[Baseline] = (),
    context_tokens: int = 4096,
    told: Told | None = None,
    clock: Clock | None = None,
    at_once: int = 1,
) -> TaskEvaluation:
    """Run ``task`` and ``baselines`` over ``items``; raises ``InvalidInput`` for a baseline it has not.

    Runs that fail are counted with their codes. ``context_tokens`` bounds the baseline ``all``;
    with more than one item ``at_once`` latencies hold what they waited for each other.
    """
    variants = {OURS: task} | {
        name: baseline_of(task, name, context_tokens=context_tokens) for name in baselines
    }
    runs = await run_all(tasks, variants, items, told=told, clock=clock, at_once=at_once)
    keys = claim_keys(task)
    figures = {
        name: await asyncio.to_thread(figures_of, variant, runs[name], store, origin=task)
        for name, variant in variants.items()
    }
    coverage: dict[str, float | None] = {
        name: aspect_coverage(runs[OURS], runs[name], keys) for name in baselines
    }
    models = [run.result.model for run in runs[OURS] if run.result is not None and run.result.model]
    return TaskEvaluation(figures, runs, coverage, models[0] if models else "")


def differences(ours: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, float]:
    """Return ours less theirs for every figure that both have and that is a number."""
    return {
        key: value - others[key]
        for key, value in ours.items()
        if key not in _NO_DIFFERENCE
        and isinstance(value, int | float)
        and isinstance(others.get(key), int | float)
    }

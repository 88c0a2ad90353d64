"""A task evaluated on labelled items, with its baselines beside it: runs, figures, differences.

The figures over the runs of a task: what was right, what carried it, what it cost.

A figure is there where some item's ``expected`` has what it needs and the results hold it. Shares are
in 0…1, times in milliseconds. Blocking: claims and provisions are looked up again in the store.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ondol.core.clock import Clock
from ondol.core.types import OnStep
from ondol.lab.evaluate.legal_scores import law_figures
from ondol.lab.evaluate.statistics import (
    knowable,
    label_scores,
    percentile,
    set_scores,
    told_scores,
)
from ondol.lab.evaluate.task_baselines import Baseline, baseline_of
from ondol.lab.evaluate.task_items import ExpectedAspect, ItemSources, TaskItem
from ondol.lab.evaluate.task_runs import (
    Done,
    EvaluationRun,
    Figures,
    claim_keys,
    judged_claims,
    rows_of,
    run_all,
    said_in,
)
from ondol.lab.evaluate.wording import bleu, rouge_l
from ondol.store.documents import DocumentStore
from ondol.tasks.declaration import Task
from ondol.tasks.json_schema import fits
from ondol.tasks.task_service import TaskService

MISFIT = "result_misfit"
"""The error of a run whose result did not fit its task's schema."""


def figures_of(
    task: Task, runs: Sequence[EvaluationRun], store: DocumentStore, *, origin: Task | None = None
) -> Figures:
    """Return the figures of ``runs`` of ``task``.

    ``origin`` is the task as declared, for a baseline of it: its keys of claims count, and what is
    cited is looked up in its collections.
    """
    done = [(run, run.result) for run in runs if run.result is not None]
    declared = origin or task
    keys = claim_keys(declared)
    found: Figures = {
        "items": sum(run.item.rows for run in runs),
        "runs": len(runs),
        **_labels(declared, done, store),
        **_aspects(done, keys),
        **_overlap(done, keys),
        **law_figures(declared, done, keys, store),
        **_claims(declared, done, keys, store),
        **_cost(runs, done, task),
    }
    return {key: value for key, value in found.items() if value is not None}


def worded(result: Mapping[str, Any], keys: Sequence[str]) -> set[str]:
    """Return the aspects that the claims of a result speak of."""
    return {str(row["aspect"]) for _, row in rows_of(result, keys) if row.get("aspect")}


def aspect_coverage(
    ours: Sequence[EvaluationRun], others: Sequence[EvaluationRun], keys: Sequence[str]
) -> float | None:
    """Return the share of the aspects worded by ``others`` that ``ours`` word, item by item."""
    pairs = [
        (worded(other.result.result, keys), worded(one.result.result, keys))
        for one, other in zip(ours, others, strict=True)
        if one.result is not None and other.result is not None
    ]
    scores = set_scores(pairs)
    return scores.recall if scores else None


def _labels(task: Task, done: Done, store: DocumentStore) -> Figures:
    pairs: list[tuple[str, str]] = []
    known: set[str] = set()
    for run, result in done:
        rows = result.result.get("labels") or []
        known |= set(result.result.get("distribution") or {})
        ids = list(ItemSources(task, run.item.input, store).entries) or [row["id"] for row in rows]
        said = {row["id"]: row["label"] for row in rows}
        pairs += [
            (label, said.get(name, "")) for name, label in run.item.expected.truths(ids).items()
        ]
    scores = label_scores(pairs)
    if scores is None:
        return {}
    found: Figures = {
        "labelled": scores.count,
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
    }
    sayable = knowable(pairs, known)
    strange = Counter(truth for truth, _ in pairs if truth not in known)
    inner = label_scores(sayable)
    if strange:
        found["unknown_labels"] = dict(strange)
        found["accuracy_of_known"] = inner.accuracy if inner else None
        found["macro_f1_of_known"] = inner.macro_f1 if inner else None
    return found


def _aspects(done: Done, keys: Sequence[str]) -> Figures:
    counted, polar, worded_ones = [], [], []
    mentions = covered = 0
    for run, result in done:
        rows = result.result.get("aspects") or []
        said = worded(result.result, keys)
        mentions += sum(int(row["mentions"]) for row in rows)
        covered += sum(int(row["mentions"]) for row in rows if row["aspect"] in said)
        if run.item.expected.aspects is None:
            continue
        wanted = [
            one if isinstance(one, ExpectedAspect) else ExpectedAspect(aspect=one)
            for one in run.item.expected.aspects
        ]
        names = {one.aspect for one in wanted}
        counted.append((names, {str(row["aspect"]) for row in rows}))
        worded_ones.append((names, said))
        polar.append(
            (
                {(one.aspect, one.polarity) for one in wanted if one.polarity},
                {(str(row["aspect"]), leading(row)) for row in rows},
            )
        )
    found: Figures = {"aspect_coverage": covered / mentions if mentions and keys else None}
    found |= told_scores("aspect", set_scores(counted))
    if any(wanted for wanted, _ in polar):
        scores = set_scores(polar)
        found["aspect_polarity_recall"] = scores.recall if scores else None
    return found | (told_scores("worded_aspect", set_scores(worded_ones)) if keys else {})


def leading(row: Mapping[str, Any]) -> str:
    """Return the polarity that most mentions of an aspect have; mixed where they balance."""
    praised, blamed = int(row["positive"]), int(row["negative"])
    return "positive" if praised > blamed else "negative" if blamed > praised else "mixed"


def _overlap(done: Done, keys: Sequence[str]) -> Figures:
    pairs = [
        (" ".join(said_in(row) for _, row in rows_of(result.result, keys)), texts)
        for run, result in done
        if (texts := run.item.expected.texts())
    ]
    if not pairs:
        return {}
    return {"bleu": bleu(pairs), "rouge_l": fmean(rouge_l(*pair) for pair in pairs)}


def _claims(task: Task, done: Done, keys: Sequence[str], store: DocumentStore) -> Figures:
    if not keys:
        return {}
    judged = [
        judged_claims(
            result.result, keys, result.dropped_claims, ItemSources(task, run.item.input, store)
        )
        for run, result in done
    ]
    generated = sum(one.generated for one in judged)
    kept = sum(one.kept for one in judged)
    supported = sum(one.supported for one in judged)
    support = [value for one in judged for value in one.support]
    return {
        "claims": kept,
        "claims_generated": generated,
        "faithfulness": supported / generated if generated else None,
        "supported_of_kept": supported / kept if kept else None,
        "words_supported": fmean(support) if support else None,
    }


def _cost(runs: Sequence[EvaluationRun], done: Done, task: Task) -> Figures:
    count = max(len(runs), 1)
    valid = sum(fits(result.result, task.output) for _, result in done)
    given = len(done) + sum(run.error == MISFIT for run in runs)
    used = [result.usage for _, result in done]
    times = [run.seconds * 1e3 for run in runs if run.result is not None]
    return {
        "success_rate": len(done) / count,
        "schema_valid": valid / given if given else None,
        "errors": dict(Counter(run.error for run in runs if run.error)) or None,
        "prompt_tokens_mean": fmean(one.prompt_tokens for one in used) if used else None,
        "cached_tokens_mean": fmean(one.cached_tokens for one in used) if used else None,
        "completion_tokens_mean": fmean(one.completion_tokens for one in used) if used else None,
        "latency_p50_ms": percentile(times, 0.5),
        "latency_p95_ms": percentile(times, 0.95),
        "seconds": sum(run.seconds for run in runs),
    }


OURS = "task"
_NO_DIFFERENCE = ("items", "runs", "labelled", "seconds")


@dataclass(frozen=True, slots=True)
class TaskEvaluation:
    """The figures and the runs of a task and of its baselines, by name; ``OURS`` is the task."""

    figures: Mapping[str, Figures]
    runs: Mapping[str, Sequence[EvaluationRun]]
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
    told: OnStep | None = None,
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

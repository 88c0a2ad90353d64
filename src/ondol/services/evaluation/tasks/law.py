"""The figures of legal work: provisions real and right, fields of law, outcomes, punishments, fields.

Blocking: what is cited is looked up again in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ondol.services.evaluation.statistics import set_scores, told_scores
from ondol.services.evaluation.tasks.provisions import cited_provisions
from ondol.services.evaluation.tasks.runs import Done, Figures
from ondol.services.evaluation.tasks.sources import Sources
from ondol.services.tasks.declaration import Task
from ondol.services.tasks.service import TaskResult
from ondol.store.documents import DocumentStore


def law_figures(task: Task, done: Done, keys: Sequence[str], store: DocumentStore) -> Figures:
    """Return what is cited and how much of it is real and right, tags, outcomes, bands, fields."""
    cited = [
        cited_provisions(
            result.result,
            _law_keys(result, keys),
            run.item.expected.provisions,
            Sources(task, run.item.input, store),
        )
        for run, result in done
    ]
    gold = [
        one
        for one, (run, _) in zip(cited, done, strict=True)
        if run.item.expected.provisions is not None
    ]
    tags = [
        (set(run.item.expected.tags), _tags(result.result) or set(one.tags))
        for one, (run, result) in zip(cited, done, strict=True)
        if run.item.expected.tags is not None
    ]
    total = sum(one.cited for one in cited)
    right, spoken = sum(one.right for one in gold), sum(one.provisions for one in gold)
    wanted = sum(one.wanted for one in gold)
    return {
        "cited": total or None,
        "cited_real": sum(one.real for one in cited) / total if total else None,
        "provisions_cited": spoken if gold else None,
        "statute_relevance": right / spoken if spoken else None,
        "statute_recall": sum(one.found for one in gold) / wanted if wanted else None,
        **told_scores("tag", set_scores(tags)),
        **_verdicts(done),
    }


def _law_keys(result: TaskResult, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of claims, and of what a search found."""
    return tuple(dict.fromkeys([*keys, *({"provisions", "precedents"} & set(result.result))]))


def _tags(result: Mapping[str, Any]) -> set[str]:
    return {str(row["tag"]) for row in result.get("tags") or ()}


def _verdicts(done: Done) -> Figures:
    outcomes, bands, fields = [], [], []
    for run, result in done:
        expected, said = run.item.expected, result.result
        if expected.outcome is not None:
            outcomes.append((said.get("outcome") or {}).get("prediction") == expected.outcome)
        if expected.sentence_band is not None:
            band, given = said.get("sentence_band") or {}, expected.sentence_band
            within = band and band["least"] <= given.amount <= band["most"]
            bands.append(bool(within) and band["kind"] == given.kind)
        if expected.fields is not None:
            for kind, values in expected.fields.items():
                rows = (said.get("fields") or {}).get(kind) or ()
                fields.append((set(values), {str(row["value"]) for row in rows}))
    return {
        "outcome_accuracy": fmean(outcomes) if outcomes else None,
        "band_accuracy": fmean(bands) if bands else None,
        **told_scores("field", set_scores(fields)),
    }

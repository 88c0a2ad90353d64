"""The scores of queries one by one, and their means: over all, and by kind of query.

Pure. A ranking is of documents, best first; figures at k count the first k of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondol.services.evaluation.datasets import Query
from ondol.services.evaluation.query_types import QUERY_TYPES, QueryType, query_type
from ondol.services.evaluation.statistics import (
    Difference,
    Interval,
    difference,
    interval,
    ndcg,
    recall,
    reciprocal_rank,
)

FIGURES = ("ndcg_at_10", "recall_at_1", "recall_at_5", "recall_at_10", "mrr_at_10")


@dataclass(frozen=True, slots=True)
class QueryScore:
    """What one query scored; ``ranked`` holds its first ten documents."""

    id: str
    text: str
    type: QueryType
    ndcg_at_10: float
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr_at_10: float
    ranked: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def score(query: Query, ranked: Sequence[str]) -> QueryScore:
    """Return the scores of ``query`` under ``ranked``."""
    return QueryScore(
        id=query.id,
        text=query.text,
        type=query_type(query.text),
        ndcg_at_10=ndcg(ranked, query.relevant),
        recall_at_1=recall(ranked, query.relevant, k=1),
        recall_at_5=recall(ranked, query.relevant, k=5),
        recall_at_10=recall(ranked, query.relevant),
        mrr_at_10=reciprocal_rank(ranked, query.relevant),
        ranked=tuple(ranked[:10]),
    )


def values(scores: Sequence[QueryScore], figure: str) -> list[float]:
    """Return one figure of every query, in order."""
    return [float(getattr(one, figure)) for one in scores]


def mean(scores: Sequence[QueryScore], figure: str) -> float:
    """Return the mean of one figure; 0 for no queries."""
    return sum(values(scores, figure)) / len(scores) if scores else 0.0


def intervals(scores: Sequence[QueryScore]) -> dict[str, Interval]:
    """Return every figure with its 95 % interval."""
    return {figure: interval(values(scores, figure)) for figure in FIGURES}


def by_type(scores: Sequence[QueryScore]) -> dict[QueryType, list[QueryScore]]:
    """Return the scores by kind of query; kinds that do not occur are left out."""
    groups = {kind: [one for one in scores if one.type == kind] for kind in QUERY_TYPES}
    return {kind: group for kind, group in groups.items() if group}


def differences(base: Sequence[QueryScore], other: Sequence[QueryScore]) -> dict[str, Difference]:
    """Return, for every figure, how ``other`` differs from ``base`` on the same queries."""
    return {f: difference(values(base, f), values(other, f)) for f in FIGURES}

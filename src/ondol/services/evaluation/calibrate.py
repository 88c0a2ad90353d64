"""Learns the weights of a collection's legs from the user's own questions, and decides about them.

One half of the questions learns, the other, which had no part in it, decides: learned weights are
accepted only where they do no worse there than either leg alone (less 0.005) and than what is set.
Asks each question once; all weights are tried on the rankings it found. Writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondol.core.setting_sections import RetrievalSettings
from ondol.services.calibration import FusionWeight
from ondol.services.evaluation.datasets import Query
from ondol.services.evaluation.fusion_fit import (
    WEIGHTS,
    Sample,
    fixed_weight,
    scores_by_query,
    weight_by_query,
)
from ondol.services.evaluation.halves import halves
from ondol.services.evaluation.statistics import Difference, difference, ndcg
from ondol.services.lookups import Ranking, brought_forward
from ondol.services.query_features import QueryWeight, features_of
from ondol.services.retrieval import Candidates, RetrievalService
from ondol.store.documents import DocumentStore
from ondol.store.fusion import score_fusion

MARGIN = 0.005
"""How far below its better leg a fusion may be and still be accepted."""

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Mean nDCG@10 of the half that decides, under each leg, what is set, and what was learned.

    ``by_query`` is ``None`` where no weight by query could be learned.
    """

    questions: int
    dense: float
    lexical: float
    default: float
    fixed: float
    by_query: float | None


@dataclass(frozen=True, slots=True)
class Learned:
    """The weight that was learned, what the held-back half says of it, and whether it may be used.

    ``against_default`` compares with what is set, ``against_fixed`` a weight by query with a fixed
    one, question by question. ``reason`` says in a sentence why it is accepted or not.
    """

    weight: FusionWeight
    learned_on: int
    held_back: HeldBack
    against_default: Difference
    against_fixed: Difference | None
    accepted: bool
    reason: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Calibrator:
    """Learns on one collection; ``settings`` are those that hold where nothing was learned."""

    def __init__(
        self, retrieval: RetrievalService, store: DocumentStore, settings: RetrievalSettings
    ) -> None:
        self._retrieval = retrieval
        self._store = store
        self._default = settings.dense_weight

    async def learn(
        self, collection: str, queries: Sequence[Query], *, told: Told | None = None
    ) -> Learned:
        """Return what ``queries`` teach about ``collection``; ``told`` hears (done, total).

        Raises ``InvalidInput`` for fewer than 16 questions with a judged document.
        """
        learning, deciding = halves(queries)
        samples = []
        for query in (*learning, *deciding):
            samples.append(await self._sample(collection, query))
            if told is not None:
                told(len(samples), len(queries))
        return decide(samples[: len(learning)], samples[len(learning) :], default=self._default)

    async def _sample(self, collection: str, query: Query) -> Sample:
        found = await self._retrieval.candidates(collection, query.text)
        return await asyncio.to_thread(self._scored, collection, query, found)

    def _scored(self, collection: str, query: Query, found: Candidates) -> Sample:
        legs = found.legs.rankings
        chunks = {chunk for ranking in legs.values() for chunk, _ in ranking} | set(found.named)
        rows = self._store.chunks(collection, sorted(chunks))
        documents = {row.chunk: row.document for row in rows}

        def score(ranking: Ranking, *, looked_up: bool = True) -> float:
            ranked = brought_forward(ranking, found.named) if looked_up else ranking
            names = (documents[chunk] for chunk, _ in ranked if chunk in documents)
            return ndcg(list(dict.fromkeys(names)), query.relevant)

        return Sample(
            features=features_of(query.text, legs),
            dense=score(legs["dense"], looked_up=False),
            lexical=score(legs["lexical"]),
            curve=tuple(
                score(score_fusion(legs, weights={"dense": weight, "lexical": 1 - weight}))
                for weight in WEIGHTS
            ),
        )


def decide(learning: Sequence[Sample], deciding: Sequence[Sample], *, default: float) -> Learned:
    """Return the weight that ``learning`` teaches and what ``deciding`` says of it."""
    dense = fixed_weight(learning, default=default)
    by_query = weight_by_query(learning, middle=dense)
    before = [one.at(default) for one in deciding]
    fixed = [one.at(dense) for one in deciding]
    following = None if by_query is None else scores_by_query(deciding, by_query)
    pays = None if following is None else difference(fixed, following)
    held_back = HeldBack(
        questions=len(deciding),
        dense=_mean([one.dense for one in deciding]),
        lexical=_mean([one.lexical for one in deciding]),
        default=_mean(before),
        fixed=_mean(fixed),
        by_query=None if following is None else _mean(following),
    )
    used: QueryWeight | None = None
    after = fixed
    if following is not None and pays is not None and pays.low > 0:
        used, after = by_query, following
    accepted, reason = _judge(held_back, _mean(after), same=used is None and dense == default)
    figures = {**asdict(held_back), "learned_on": len(learning)}
    return Learned(
        weight=FusionWeight(dense, by_query=used, figures=figures),
        learned_on=len(learning),
        held_back=held_back,
        against_default=difference(before, after),
        against_fixed=pays,
        accepted=accepted,
        reason=reason,
    )


def _judge(held_back: HeldBack, after: float, *, same: bool) -> tuple[bool, str]:
    if same:
        return False, "what is set is already the best"
    better = max(held_back.dense, held_back.lexical)
    if after < better - MARGIN:
        return False, f"nDCG@10 {after:.4f} is below the better leg's {better:.4f}"
    if after < held_back.default:
        return False, f"nDCG@10 {after:.4f} is below the {held_back.default:.4f} of what is set"
    return True, "not below either leg nor what is set, on questions that had no part in learning"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

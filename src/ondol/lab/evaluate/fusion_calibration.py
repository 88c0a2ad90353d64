"""Learns the weights of a collection's legs from the user's own questions, and decides about them.

One half of the questions learns, the other, which had no part in it, decides: learned weights are
accepted only where they do no worse there than either leg alone (less 0.005) and than what is set.
Asks each question once; all weights are tried on the rankings it found. Writes nothing.

Learns how to weigh the two legs of a search from questions whose documents are known.

Pure. A fixed weight is the best of a grid, looked at through a window so that one lucky question does
not choose it. A weight by query is a ridge logistic regression on which leg did better, each question
counting by how much better, and a swing around a middle.

Measures, language by language, whether reranking finds better on a collection's own questions.

Asks every question with and without the reranker. A gain counts where the whole 95 % interval of the
paired bootstrap is above 0: reranking costs time, so doubt speaks against it.

How many hits are enough: recall at k hits against what k hits are to read.

Pure. The smallest k is chosen whose recall is within ``WITHIN`` of the largest tried, on questions
that choose; it is used only where questions that did not choose lose no more either. Hits count, as
``retrieval.top_k`` counts them: several may be of one document. Tokens are estimated, see
``text.selection.estimate_tokens``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.answers.selection import estimate_tokens
from ondol.core.extras import needs_extra
from ondol.core.settings.sections import RetrievalSettings
from ondol.core.types import Hit, OnProgress
from ondol.lab.evaluate.answer_evaluation import differences
from ondol.lab.evaluate.datasets import Query, halves
from ondol.lab.evaluate.retrieval_evaluation import ask_all
from ondol.lab.evaluate.statistics import Difference, difference, ndcg, recall
from ondol.language.language import detect
from ondol.search.calibration import FusionWeight, RerankVerdict
from ondol.search.fusion import score_fusion
from ondol.search.lookups import Ranking, brought_forward
from ondol.search.query_words import QueryWeight, features_of
from ondol.search.retrieval import Candidates, RetrievalService
from ondol.store.documents import DocumentStore

WEIGHTS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(21))
"""The shares of the vector leg that are tried."""

FEWEST_TO_FIT = 50
"""Questions on which the legs differ, below which no weight by query is learned."""

_WINDOW = 2
_RIDGE = 3.0
_SWINGS = (0.1, 0.2, 0.3, 0.4)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: its features, and its nDCG@10 under each leg alone and at every weight."""

    features: tuple[float, ...]
    dense: float
    lexical: float
    curve: tuple[float, ...]

    def at(self, weight: float) -> float:
        """Return the score at ``weight``, between two weights of the grid on the line that joins them."""
        return float(np.interp(weight, WEIGHTS, self.curve))


def fixed_weight(samples: Sequence[Sample], *, default: float) -> float:
    """Return the share of the vector leg with the best mean score; of equals the nearest to ``default``."""
    curves = np.array([one.curve for one in samples], dtype=np.float64).mean(axis=0)
    smooth = np.array(
        [curves[max(0, at - _WINDOW) : at + _WINDOW + 1].mean() for at in range(len(WEIGHTS))]
    )
    best = float(smooth.max()) - 1e-9
    good = [weight for weight, score in zip(WEIGHTS, smooth, strict=True) if score >= best]
    return min(good, key=lambda weight: (abs(weight - default), weight))


def weight_by_query(samples: Sequence[Sample], *, middle: float) -> QueryWeight | None:
    """Return a weight that follows the query; ``None`` where the legs give nothing to learn it from.

    That is where too few questions tell them apart, or one leg is the better on all of them.
    """
    telling = [one for one in samples if one.dense != one.lexical]
    if len(telling) < FEWEST_TO_FIT or len({one.dense > one.lexical for one in telling}) == 1:
        return None
    features = np.array([one.features for one in telling], dtype=np.float64)
    centres, scales = features.mean(axis=0), features.std(axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    gained = np.array([one.dense - one.lexical for one in telling])
    beta = _logistic((features - centres) / scales, gained > 0, np.abs(gained))
    candidates = [
        QueryWeight(
            middle=centre,
            swing=swing,
            bias=float(beta[0]),
            coefficients=tuple(map(float, beta[1:])),
            centres=tuple(map(float, centres)),
            scales=tuple(map(float, scales)),
        )
        for swing in _SWINGS
        for centre in (middle - 0.1, middle, middle + 0.1)
    ]
    return max(candidates, key=lambda one: mean_by_query(samples, one))


def scores_by_query(samples: Sequence[Sample], weight: QueryWeight) -> list[float]:
    """Return the score of every question at the weight it gets."""
    return [one.at(weight.weight(one.features)) for one in samples]


def mean_by_query(samples: Sequence[Sample], weight: QueryWeight) -> float:
    return float(np.mean(scores_by_query(samples, weight)))


def _logistic(features: Floats, labels: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return bias and coefficients of a ridge logistic regression; the bias is not shrunk."""
    with needs_extra("lab"):
        from sklearn.linear_model import LogisticRegression
    model = LogisticRegression(C=1 / _RIDGE, tol=1e-8, max_iter=1000)
    model.fit(features, labels, sample_weight=weights * (len(weights) / weights.sum()))
    return np.concatenate([model.intercept_, model.coef_[0]])


MARGIN = 0.005
"""How far below its better leg a fusion may be and still be accepted."""


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
class LearnedFusion:
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
        self, collection: str, queries: Sequence[Query], *, told: OnProgress | None = None
    ) -> LearnedFusion:
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


def decide(
    learning: Sequence[Sample], deciding: Sequence[Sample], *, default: float
) -> LearnedFusion:
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
    return LearnedFusion(
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


FEWEST = 8
"""Questions in a language below which nothing is said of it."""

CHUNKS = 20
"""Hits asked for: few, as a person does."""


async def rerank_gains(
    retrieval: RetrievalService,
    collection: str,
    queries: Sequence[Query],
    *,
    model: str,
    now: Callable[[], float],
    told: OnProgress | None = None,
) -> dict[str, RerankVerdict]:
    """Return a verdict on reranker ``model`` for every language with at least 8 questions."""
    groups: dict[str, list[Query]] = {}
    for query in queries:
        groups.setdefault(detect(query.text), []).append(query)
    groups = {language: group for language, group in groups.items() if len(group) >= FEWEST}
    total = 2 * sum(map(len, groups.values()))
    asked = 0

    def count(_done: int, _all: int) -> None:
        nonlocal asked
        asked += 1
        if told is not None:
            told(asked, total)

    verdicts = {}
    for language, group in sorted(groups.items()):
        without, reranked = [
            await ask_all(
                retrieval,
                collection,
                group,
                mode="hybrid",
                rerank=rerank,
                now=now,
                chunks=CHUNKS,
                querying=count,
            )
            for rerank in (False, True)
        ]
        gained = differences(without.queries, reranked.queries)["ndcg_at_10"]
        verdicts[language] = RerankVerdict(
            model=model,
            helps=gained.low > 0,
            gain=gained.mean,
            low=gained.low,
            high=gained.high,
            questions=len(group),
        )
    return verdicts


TRIED = (3, 5, 10, 15, 20)
WITHIN = 0.01
"""Recall that a smaller k may cost."""


@dataclass(frozen=True, slots=True)
class _Read:
    """The hits of one question, best first: whether documents are relevant, what each is to read."""

    query: Query
    documents: tuple[str, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """Mean recall of the documents among the first ``k`` hits, and mean tokens of those hits."""

    k: int
    recall: float
    tokens: float


@dataclass(slots=True)
class HitLog:
    """What was hit, question by question, in one asking of them all."""

    _reads: list[_Read] = field(default_factory=list)

    def add(self, query: Query, documents: Sequence[str], hits: Sequence[Hit]) -> None:
        """Note the ``hits`` of ``query``, best first; ``documents`` are what each is of."""
        tokens = tuple(estimate_tokens(hit.text) for hit in hits)
        self._reads.append(_Read(query, tuple(documents), tokens))

    def at(self, k: int) -> Depth:
        """Return the means at ``k`` hits; zeros where nothing was asked."""
        count = max(1, len(self._reads))
        found = sum(recall(one.documents, one.query.relevant, k=k) for one in self._reads)
        return Depth(k, found / count, sum(sum(one.tokens[:k]) for one in self._reads) / count)


@dataclass(frozen=True, slots=True)
class DepthChoice:
    """Which k to use, and why. ``curve`` is of the half that chose, the others of the one that decides.

    ``before`` is at what is set now, everything as it is; ``now`` at the same k under the settings
    and the cut to use; ``wanted`` at the k that was chosen there.
    """

    curve: tuple[Depth, ...]
    before: Depth
    now: Depth
    wanted: Depth
    adopted: bool

    @property
    def k(self) -> int:
        return self.wanted.k if self.adopted else self.before.k

    def as_json(self) -> dict[str, Any]:
        return {"k": self.k, **asdict(self)}


def tried(current: int) -> tuple[int, ...]:
    """Return the ks to compare where ``current`` is set."""
    return tuple(sorted({*TRIED, current}))


def choose_depth(choosing: HitLog, deciding: HitLog, before: HitLog, current: int) -> DepthChoice:
    """Choose by the hits of one half, decide by those of the other; ``before`` are its hits today."""
    curve = tuple(choosing.at(k) for k in tried(current))
    enough = max(one.recall for one in curve) - WITHIN
    wanted = deciding.at(next(one.k for one in curve if one.recall >= enough))
    now, old = deciding.at(current), before.at(current)
    if wanted.k > current:  # more to read must find more
        adopted = wanted.recall > now.recall + WITHIN
    else:  # less to find must be less to read
        enough = max(now.recall, old.recall) - WITHIN
        adopted = wanted.tokens < now.tokens and wanted.recall >= enough
    return DepthChoice(curve, before=old, now=now, wanted=wanted, adopted=adopted)

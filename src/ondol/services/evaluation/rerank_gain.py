"""Measures, language by language, whether reranking finds better on a collection's own questions.

Asks every question with and without the reranker. A gain counts where the whole 95 % interval of the
paired bootstrap is above 0: reranking costs time, so doubt speaks against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ondol.services.calibration import RerankVerdict
from ondol.services.evaluation.datasets import Query
from ondol.services.evaluation.retrieval import ask_all
from ondol.services.evaluation.scores import differences
from ondol.services.retrieval import RetrievalService
from ondol.text.language import detect

FEWEST = 8
"""Questions in a language below which nothing is said of it."""

CHUNKS = 20
"""Hits asked for: few, as a person does."""

Told = Callable[[int, int], None]


async def rerank_gains(
    retrieval: RetrievalService,
    collection: str,
    queries: Sequence[Query],
    *,
    model: str,
    now: Callable[[], float],
    told: Told | None = None,
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

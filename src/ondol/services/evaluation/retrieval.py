"""How well search finds the judged documents of a BEIR folder, leg by leg.

Documents rank by their best chunk. Ingests into the store it is given, which is idempotent: a second
run only searches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondol.core.types import SearchMode
from ondol.services.evaluation.datasets import Query, RetrievalDataset
from ondol.services.evaluation.metrics import ndcg, recall, reciprocal_rank
from ondol.services.ingest import IngestService
from ondol.services.ingest_report import Progress
from ondol.services.retrieval import RetrievalService

MODES: tuple[SearchMode, ...] = ("hybrid", "dense", "lexical")
_CHUNKS = 60


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Means over all judged queries."""

    ndcg_at_10: float
    recall_at_10: float
    mrr_at_10: float
    seconds: float


@dataclass(frozen=True, slots=True)
class RetrievalEvaluation:
    """Scores per mode, over ``queries`` questions and ``documents`` documents."""

    dataset: str
    queries: int
    documents: int
    modes: dict[str, RetrievalScores]

    def as_json(self, mode: SearchMode) -> dict[str, Any]:
        """Return the contract's keys for ``mode`` with every measured mode beside them."""
        return {
            **asdict(self.modes[mode]),
            "mode": mode,
            "dataset": self.dataset,
            "queries": self.queries,
            "documents": self.documents,
            "modes": {name: asdict(scores) for name, scores in self.modes.items()},
        }


class RetrievalEvaluator:
    """Runs every judged query in every wanted mode."""

    def __init__(
        self, ingest: IngestService, retrieval: RetrievalService, *, now: Callable[[], float]
    ) -> None:
        self._ingest = ingest
        self._retrieval = retrieval
        self._now = now

    async def evaluate(
        self,
        dataset: RetrievalDataset,
        *,
        modes: Sequence[SearchMode] = MODES,
        rerank: bool | None = False,
        ingesting: Progress | None = None,
        querying: Callable[[int, int], None] | None = None,
    ) -> RetrievalEvaluation:
        """Ingest ``dataset`` and score its queries; ``querying`` hears (done, total)."""
        collection = f"eval-{dataset.name}"
        report = await self._ingest.ingest_paths(collection, [dataset.corpus], progress=ingesting)
        scores: dict[str, RetrievalScores] = {}
        total = len(dataset.queries) * len(modes)
        for at, mode in enumerate(modes):
            started = self._now()
            sums = [0.0, 0.0, 0.0]
            for done, query in enumerate(dataset.queries, start=1):
                ranked = await self._rank(collection, query, mode, rerank)
                sums[0] += ndcg(ranked, query.relevant)
                sums[1] += recall(ranked, query.relevant)
                sums[2] += reciprocal_rank(ranked, query.relevant)
                if querying is not None:
                    querying(at * len(dataset.queries) + done, total)
            means = [value / len(dataset.queries) for value in sums]
            scores[mode] = RetrievalScores(
                means[0], means[1], means[2], seconds=self._now() - started
            )
        return RetrievalEvaluation(
            dataset=dataset.name,
            queries=len(dataset.queries),
            documents=report.added + report.updated + report.unchanged,
            modes=scores,
        )

    async def _rank(
        self, collection: str, query: Query, mode: SearchMode, rerank: bool | None
    ) -> list[str]:
        found = await self._retrieval.search(
            collection, query.text, top_k=_CHUNKS, mode=mode, rerank=rerank
        )
        return list(dict.fromkeys(hit.document for hit in found.hits))

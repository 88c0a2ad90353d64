"""How well search finds the judged documents of a BEIR folder, leg by leg.

Documents rank by their best chunk. Ingests into the store it is given, which is idempotent: a second
run only searches. Knows how to ask; what the scores amount to is ``scores``' and ``bootstrap``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondol.core.types import Hit, OnProgress, SearchMode
from ondol.documents.ingest import IngestService
from ondol.documents.ingest_report import Progress
from ondol.lab.evaluate.answer_evaluation import (
    FIGURES,
    QueryScore,
    by_type,
    differences,
    intervals,
    mean,
    score,
)
from ondol.lab.evaluate.datasets import Query, RetrievalDataset
from ondol.lab.evaluate.statistics import Difference, Interval
from ondol.search.retrieval import RetrievalService

MODES: tuple[SearchMode, ...] = ("hybrid", "dense", "lexical")
CHUNKS = 60
"""Hits looked at for ten documents: a long document may hold many of them."""

Seen = Callable[[Query, Sequence[str], Sequence[Hit]], None]
"""Hears of a query, the hits found for it, and the document each is of."""


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """The scores of every judged query under one setting, and how long asking took."""

    queries: tuple[QueryScore, ...]
    seconds: float

    def figures(self) -> dict[str, float]:
        """Return the means over all queries."""
        return {figure: mean(self.queries, figure) for figure in FIGURES}

    def intervals(self) -> dict[str, Interval]:
        """Return the means with their 95 % bounds."""
        return intervals(self.queries)

    def by_type(self) -> dict[str, dict[str, float]]:
        """Return the means by kind of query, with how many there are."""
        return {
            kind: {"queries": len(group), **{f: mean(group, f) for f in FIGURES}}
            for kind, group in by_type(self.queries).items()
        }


@dataclass(frozen=True, slots=True)
class RetrievalEvaluation:
    """Scores per mode, over ``queries`` questions and ``documents`` documents.

    ``against`` holds the scores under other settings, ``changed`` says which; they are held against
    those of the mode ``compared``.
    """

    dataset: str
    queries: int
    documents: int
    modes: dict[str, RetrievalScores]
    compared: SearchMode = "hybrid"
    against: RetrievalScores | None = None
    changed: Mapping[str, Any] | None = None

    def differences(self) -> dict[str, Difference]:
        """Return by how much ``against`` differs, query by query; empty where there is none."""
        if self.against is None:
            return {}
        return differences(self.modes[self.compared].queries, self.against.queries)

    def as_json(self, mode: SearchMode, *, items: bool = False) -> dict[str, Any]:
        """Return the contract's keys for ``mode`` with every measured mode beside them."""
        scores = self.modes[mode]
        report: dict[str, Any] = {
            **scores.figures(),
            "seconds": scores.seconds,
            "mode": mode,
            "dataset": self.dataset,
            "queries": self.queries,
            "documents": self.documents,
            "intervals": {f: [i.low, i.high] for f, i in scores.intervals().items()},
            "types": scores.by_type(),
            "modes": {
                name: {**each.figures(), "seconds": each.seconds}
                for name, each in self.modes.items()
            },
        }
        if self.against is not None:
            report["against"] = {
                "settings": dict(self.changed or {}),
                **self.against.figures(),
                "seconds": self.against.seconds,
                "types": self.against.by_type(),
                "differences": {f: asdict(one) for f, one in self.differences().items()},
            }
        if items:
            report["items"] = [one.as_json() for one in scores.queries]
        return report


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
        querying: OnProgress | None = None,
    ) -> RetrievalEvaluation:
        """Ingest ``dataset`` and score its queries; ``querying`` hears (done, total)."""
        collection = collection_of(dataset)
        report = await self._ingest.ingest_paths(
            collection, [dataset.corpus], recut=True, progress=ingesting
        )
        total = len(dataset.queries) * len(modes)
        scores: dict[str, RetrievalScores] = {}
        for at, mode in enumerate(modes):
            before = at * len(dataset.queries)
            scores[mode] = await ask_all(
                self._retrieval,
                collection,
                dataset.queries,
                mode=mode,
                rerank=rerank,
                now=self._now,
                querying=_shifted(querying, before, total),
            )
        return RetrievalEvaluation(
            dataset=dataset.name,
            queries=len(dataset.queries),
            documents=report.added + report.updated + report.unchanged,
            modes=scores,
        )


async def ask_all(
    retrieval: RetrievalService,
    collection: str,
    queries: Sequence[Query],
    *,
    mode: SearchMode,
    rerank: bool | None,
    now: Callable[[], float],
    chunks: int = CHUNKS,
    querying: OnProgress | None = None,
    names: Mapping[str, str] | None = None,
    seen: Seen | None = None,
) -> RetrievalScores:
    """Ask ``collection`` every query and score the documents of the best ``chunks`` hits.

    ``names`` are those of documents that the judgments know under another name than the hits do.
    """
    started = now()
    scores: list[QueryScore] = []
    for query in queries:
        found = await retrieval.search(
            collection, query.text, top_k=chunks, mode=mode, rerank=rerank
        )
        documents = [(names or {}).get(hit.document, hit.document) for hit in found.hits]
        scores.append(score(query, list(dict.fromkeys(documents))))
        if seen is not None:
            seen(query, documents, found.hits)
        if querying is not None:
            querying(len(scores), len(queries))
    return RetrievalScores(tuple(scores), seconds=now() - started)


def collection_of(dataset: RetrievalDataset) -> str:
    """Return the name of the collection that holds the corpus of ``dataset``."""
    return f"eval-{dataset.name}"


def _shifted(told: OnProgress | None, before: int, total: int) -> OnProgress | None:
    if told is None:
        return None
    return lambda done, _: told(before + done, total)

"""The two rankings behind a search: chunks by their vectors, and chunks by their keywords.

Runs both legs side by side and times them. Knows nothing of how they are fused, reranked or shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput
from ondol.core.events import Timing
from ondol.core.types import SearchMode
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.search.lookups import Ranking
from ondol.search.query_words import QueryAnalyzer, query_words
from ondol.store.documents import DocumentStore

RetrieverName = Literal["dense", "lexical"]
RETRIEVERS: tuple[RetrieverName, ...] = ("dense", "lexical")


@dataclass(frozen=True, slots=True)
class RetrievalQuery:
    """What the legs look for: ``queries`` are wordings of one question, as it was asked first.

    ``before`` is what the question leans on; the legs do not look for it.
    """

    collection: str
    queries: Sequence[str]
    mode: SearchMode
    depth: int
    filter: Mapping[str, Any] | None = None
    before: str = ""


@dataclass(frozen=True, slots=True)
class WordingRankings:
    """The rankings of the legs that ran for one wording, best first, by leg."""

    query: str
    rankings: Mapping[str, Ranking]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found for each wording, in their order, and how many milliseconds each leg took."""

    wordings: Sequence[WordingRankings]
    timings: Mapping[str, float] = field(default_factory=dict)

    def scores(self, name: RetrieverName) -> dict[int, float]:
        """Return chunk → best score of one leg over the wordings; empty where it did not run."""
        best: dict[int, float] = {}
        for legs in self.wordings:
            for chunk, score in legs.rankings.get(name, ()):
                best[chunk] = max(score, best.get(chunk, score))
        return best


class Retrievers:
    """Runs the legs over one store; ``embedding`` is ``None`` where there are no vectors."""

    def __init__(
        self,
        store: DocumentStore,
        embedding: EmbeddingService | None,
        analyzer: QueryAnalyzer,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._analyzer = analyzer
        self._clock = clock

    async def run(self, wanted: RetrievalQuery, *, timing: Timing | None = None) -> Retrieved:
        """Return up to ``wanted.depth`` chunks of each leg of the mode, for each wording."""
        timings: dict[str, float] = {}
        runs: dict[str, Callable[[], Awaitable[list[Ranking]]]] = {
            "dense": lambda: self._dense(wanted, timing),
            "lexical": lambda: self._lexical(wanted),
        }
        names = [name for name in RETRIEVERS if wanted.mode in ("hybrid", name)]
        found = await asyncio.gather(*(self._timed(name, runs[name], timings) for name in names))
        wordings = [
            WordingRankings(query, dict(zip(names, rankings, strict=True)))
            for query, *rankings in zip(wanted.queries, *found, strict=True)
        ]
        return Retrieved(wordings, timings)

    async def _timed(
        self, name: str, run: Callable[[], Awaitable[list[Ranking]]], timings: dict[str, float]
    ) -> list[Ranking]:
        before = self._clock.monotonic()
        rankings = await run()
        timings[f"{name}_ms"] = (self._clock.monotonic() - before) * 1e3
        return rankings

    async def _dense(self, wanted: RetrievalQuery, timing: Timing | None) -> list[Ranking]:
        if self._embedding is None:
            raise InvalidInput(
                "vector search needs an embedder, and none is loaded",
                hint="use mode 'lexical', or load an embedder",
                param="mode",
            )
        embedded = await self._embedding.embed(
            list(wanted.queries), role="query", truncate=True, timing=timing, lane=None
        )

        def work() -> list[Ranking]:
            return [
                self._store.search_vectors(
                    wanted.collection, vector, limit=wanted.depth, filter=wanted.filter
                )
                for vector in embedded.vectors
            ]

        return await asyncio.to_thread(work)

    async def _lexical(self, wanted: RetrievalQuery) -> list[Ranking]:
        def ranking(query: str) -> Ranking:
            words = query_words(self._store, self._analyzer, wanted.collection, [query])
            return self._store.search_lexical(
                wanted.collection,
                words.tokens,
                limit=wanted.depth,
                filter=wanted.filter,
                expansions=words.expansions,
            )

        return await asyncio.to_thread(lambda: [ranking(query) for query in wanted.queries])

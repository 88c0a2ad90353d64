"""Finds passages: vectors beside keywords, fused by rank, reranked where that helps.

Owns no data: the store searches, the embedder and the analyser prepare the query. Scores of a hit
are those of the last stage that ordered it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import Conflict, InvalidInput
from ondol.core.lanes import LanesSettings
from ondol.core.observe import NullObserver, Observer, Timing
from ondol.core.setting_sections import RetrievalSettings
from ondol.core.types import Hit, SearchMode
from ondol.engine.permit import LanePermit
from ondol.services.embedding import EmbeddingService
from ondol.services.lookups import Lookups, Ranking, brought_forward, kept_first
from ondol.services.outcomes import finished
from ondol.services.reranking import RerankingService
from ondol.store.documents import DocumentStore
from ondol.store.fusion import reciprocal_rank_fusion, score_fusion
from ondol.store.records import Collection
from ondol.text.language import detect


class Analyzer(Protocol):
    """Turns a query into keyword tokens."""

    def query_tokens(self, text: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; ``timings`` in milliseconds per stage."""

    hits: list[Hit]
    mode: SearchMode
    reranked: bool
    timings: Mapping[str, float] = field(default_factory=dict)


class RetrievalService:
    """Searches one collection at a time."""

    def __init__(
        self,
        store: DocumentStore,
        embedding: EmbeddingService | None,
        analyzer: Analyzer,
        *,
        settings: RetrievalSettings,
        reranking: RerankingService | None = None,
        lanes: LanesSettings | None = None,
        permit: LanePermit | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._analyzer = analyzer
        self._settings = settings
        self._reranking = reranking
        self._lanes = lanes or LanesSettings()
        self._permit = permit
        self._observer = observer or NullObserver()
        self._clock = clock or SystemClock()
        self._lookups = _lookups(store, settings)

    def under(self, settings: RetrievalSettings) -> RetrievalService:
        """Return this service as it is under other settings, for comparing the two."""
        other = copy.copy(self)
        other._settings = settings
        other._lookups = _lookups(self._store, settings)
        return other

    async def search(
        self,
        collection: str,
        query: str,
        *,
        top_k: int | None = None,
        mode: SearchMode | None = None,
        rerank: bool | None = None,
        filter: Mapping[str, Any] | None = None,
        timing: Timing | None = None,
        lane: Literal["search"] | None = "search",
    ) -> SearchResult:
        """Return the ``top_k`` best chunks of ``collection`` for ``query``.

        A request of its own holds a place in the lane; ``lane`` is ``None`` for a part of another.
        Raises ``NotFound`` for an unknown collection, ``Conflict`` when its vectors come from
        another embedder, ``InvalidInput`` for an empty query.
        """
        if not query.strip():
            raise InvalidInput("the query is empty", hint="send at least one word", param="query")
        mode = mode or self._settings.mode
        top_k = top_k or self._settings.top_k
        timing = timing or Timing()
        async with self._place(lane, timing):
            return await self._search(collection, query, top_k, mode, rerank, filter, timing)

    @asynccontextmanager
    async def _place(self, lane: Literal["search"] | None, timing: Timing) -> AsyncIterator[None]:
        """Hold a place in the lane around one search, and tell how it ended."""
        model = self._embedding.model if self._embedding is not None else ""
        promise = self._lanes.promise_ms(lane)
        with finished(
            self._observer,
            lane=lane,
            model=model,
            timing=timing,
            promise_ms=promise,
            clock=self._clock,
        ):
            if lane is None or self._permit is None:
                yield
                return
            async with self._permit.hold(timing):
                yield

    async def _search(
        self,
        collection: str,
        query: str,
        top_k: int,
        mode: SearchMode,
        rerank: bool | None,
        filter: Mapping[str, Any] | None,
        timing: Timing,
    ) -> SearchResult:
        started = self._clock.monotonic()
        kept = await self._check(collection, mode)
        use_rerank = self._should_rerank(query, rerank)
        depth = max(top_k, self._settings.candidates)
        fused, legs, timings = await self._legs(collection, query, mode, depth, filter, timing)
        named = await self._named(kept, query, fused, mode, filter)
        fused = brought_forward(fused, named)
        keep = max(top_k, self._settings.rerank_depth) if use_rerank else top_k
        hits = await self._hits(collection, fused[:keep], legs)
        if use_rerank and hits:
            before = self._clock.monotonic()
            hits = kept_first(await self._rerank(query, hits, timing), named)
            timings["rerank_ms"] = (self._clock.monotonic() - before) * 1e3
        total = (self._clock.monotonic() - started) * 1e3
        timing.retrieve_ms += total
        timings["total_ms"] = total
        return SearchResult(hits=hits[:top_k], mode=mode, reranked=use_rerank, timings=timings)

    async def _check(self, collection: str, mode: SearchMode) -> Collection:
        found = await asyncio.to_thread(self._store.collection, collection)
        if mode == "lexical" or self._embedding is None:
            return found
        if found.embedder != self._embedding.model:
            raise Conflict(
                f"collection {collection!r} was embedded with {found.embedder}, "
                f"the loaded embedder is {self._embedding.model}",
                hint=f"set models.embedder = {found.embedder!r}, or ingest into a new collection",
                code="embedder_mismatch",
            )
        return found

    async def _named(
        self,
        collection: Collection,
        query: str,
        ranking: Ranking,
        mode: SearchMode,
        filter: Mapping[str, Any] | None,
    ) -> list[int]:
        """Return the chunks of the cases and articles the query names; vectors alone know none."""
        if mode == "dense":
            return []
        return await asyncio.to_thread(
            self._lookups.chunks,
            collection.name,
            query,
            ranking,
            metadata=collection.metadata,
            filter=filter,
        )

    async def _legs(
        self,
        collection: str,
        query: str,
        mode: SearchMode,
        depth: int,
        filter: Mapping[str, Any] | None,
        timing: Timing | None,
    ) -> tuple[Ranking, dict[str, Ranking], dict[str, float]]:
        timings: dict[str, float] = {}
        names = [name for name in ("dense", "lexical") if mode in ("hybrid", name)]
        run = {
            "dense": lambda: self._dense(collection, query, depth, filter, timing),
            "lexical": lambda: self._lexical(collection, query, depth, filter),
        }
        rankings = await asyncio.gather(*(self._timed(name, run[name], timings) for name in names))
        legs = dict(zip(names, rankings, strict=True))
        if mode != "hybrid":
            return legs[mode], legs, timings
        weight = self._settings.dense_weight
        weights = {"dense": weight, "lexical": 1 - weight}
        if self._settings.fusion == "scores":
            return score_fusion(legs, weights=weights), legs, timings
        fused = reciprocal_rank_fusion(legs, k=self._settings.rrf_k, weights=weights)
        return fused, legs, timings

    async def _timed(self, name: str, run: Any, timings: dict[str, float]) -> Ranking:
        before = self._clock.monotonic()
        ranking: Ranking = await run()
        timings[f"{name}_ms"] = (self._clock.monotonic() - before) * 1e3
        return ranking

    async def _dense(
        self,
        collection: str,
        query: str,
        depth: int,
        filter: Mapping[str, Any] | None,
        timing: Timing | None,
    ) -> Ranking:
        if self._embedding is None:
            raise InvalidInput(
                "vector search needs an embedder, and none is loaded",
                hint="use mode 'lexical', or load an embedder",
                param="mode",
            )
        embedded = await self._embedding.embed(
            [query], role="query", truncate=True, timing=timing, lane=None
        )
        return await asyncio.to_thread(
            self._store.search_vectors, collection, embedded.vectors[0], limit=depth, filter=filter
        )

    async def _lexical(
        self, collection: str, query: str, depth: int, filter: Mapping[str, Any] | None
    ) -> Ranking:
        def work() -> Ranking:
            tokens = self._analyzer.query_tokens(query)
            return self._store.search_lexical(collection, tokens, limit=depth, filter=filter)

        return await asyncio.to_thread(work)

    async def _hits(
        self, collection: str, ranking: Sequence[tuple[int, float]], legs: Mapping[str, Ranking]
    ) -> list[Hit]:
        rows = await asyncio.to_thread(self._store.chunks, collection, [c for c, _ in ranking])
        scores = dict(ranking)
        dense = dict(legs.get("dense", ()))
        lexical = dict(legs.get("lexical", ()))
        return [
            Hit(
                document=row.document,
                chunk=row.chunk,
                page=row.page,
                start=row.start,
                end=row.end,
                score=scores[row.chunk],
                text=row.text,
                title=row.title,
                heading=row.heading,
                metadata=row.metadata,
                dense_score=dense.get(row.chunk),
                lexical_score=lexical.get(row.chunk),
            )
            for row in rows
        ]

    def _should_rerank(self, query: str, wanted: bool | None) -> bool:
        if self._reranking is None:
            if wanted:
                raise InvalidInput(
                    "reranking was asked for, and no reranker is loaded",
                    hint="set models.reranker, or leave rerank out",
                    param="rerank",
                )
            return False
        if wanted is not None:
            return wanted
        if self._settings.rerank == "auto":
            return self._reranking.knows(detect(query))
        return self._settings.rerank == "on"

    async def _rerank(self, query: str, hits: list[Hit], timing: Timing | None) -> list[Hit]:
        if self._reranking is None:
            return hits
        texts = [f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in hits]
        result = await self._reranking.rerank(query, texts, truncate=True, timing=timing, lane=None)
        return [
            replace(hits[item.index], score=item.score, rerank_score=item.logit)
            for item in result.results
        ]


def _lookups(store: DocumentStore, settings: RetrievalSettings) -> Lookups:
    names = Path(settings.law_names) if settings.law_names else None
    return Lookups(store, names_file=names)

"""Finds passages: vectors beside keywords, fused, reranked where that helps.

Owns no data: the store searches, the embedder and the analyser prepare the query. Scores of a hit
are those of the last stage that ordered it.

Joins the legs of a search into one ranking, under the weight that holds for the query.

Pure. A weight measured for the collection goes before the setting. Where a question was searched in
several wordings, their rankings are joined too.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import Conflict, InvalidInput
from ondol.core.events import NullObserver, Observer, Timing
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.settings.sections import RetrievalSettings
from ondol.core.types import Hit, Reading, SearchMode
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.runtime.encoders.reranking import RerankingService
from ondol.runtime.lane_semaphore import LaneSemaphore
from ondol.runtime.outcomes import finished
from ondol.search.calibration import CollectionCalibration, calibration_of, reranks
from ondol.search.fusion import reciprocal_rank_fusion, score_fusion
from ondol.search.lookups import Lookups, Ranking, brought_forward, kept_first
from ondol.search.parents import DEPTH, read_parents
from ondol.search.query_words import QueryAnalyzer, features_of
from ondol.search.retrievers import RetrievalQuery, Retrieved, Retrievers, WordingRankings
from ondol.store.documents import DocumentStore
from ondol.store.records import Collection

AS_ASKED = 0.3
"""Share of the wording that was asked where there is another; see ``benchmarks/follow_ups.py``."""


@dataclass(frozen=True, slots=True)
class Fused:
    """One ranking, best first; ``dense_weight`` is the vector leg's share, ``None`` of one leg.

    Of several wordings it is the last one's.
    """

    ranking: Ranking
    dense_weight: float | None = None


def fuse(
    found: Retrieved, *, settings: RetrievalSettings, calibration: CollectionCalibration
) -> Fused:
    """Return what was found as one ranking; of one leg and one wording it is as it came."""
    if len(found.wordings) == 1 and len(found.wordings[0].rankings) == 1:
        return Fused(next(iter(found.wordings[0].rankings.values())))
    fused = [_joined(legs, settings, calibration) for legs in found.wordings]
    if len(fused) == 1:
        return fused[0]
    others = (1 - AS_ASKED) / (len(fused) - 1)
    scores: dict[int, float] = {}
    for at, one in enumerate(fused):
        for chunk, score in one.ranking:
            scores[chunk] = scores.get(chunk, 0.0) + (others if at else AS_ASKED) * score
    ranking = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    return Fused(ranking, fused[-1].dense_weight)


def _joined(
    legs: WordingRankings, settings: RetrievalSettings, calibration: CollectionCalibration
) -> Fused:
    """Return the legs of one wording as one ranking, of scores that wordings share."""
    weight: float | None = None
    weights = dict.fromkeys(legs.rankings, 1.0)
    if len(legs.rankings) == 2:
        weight = weight_of(legs, settings=settings, calibration=calibration)
        weights = {"dense": weight, "lexical": 1 - weight}
    if settings.fusion == "ranks":
        ranking = reciprocal_rank_fusion(legs.rankings, k=settings.rrf_k, weights=weights)
    else:
        ranking = score_fusion(legs.rankings, weights=weights)
    return Fused(ranking, weight)


def weight_of(
    legs: WordingRankings, *, settings: RetrievalSettings, calibration: CollectionCalibration
) -> float:
    """Return the share of the vector leg: measured for this collection, else the setting's.

    Measured weights are of fused scores and hold for nothing else.
    """
    measured = calibration.fusion
    if measured is None or settings.fusion != "scores" or settings.calibration == "off":
        return settings.dense_weight
    if measured.by_query is None:
        return measured.dense
    return measured.by_query.weight(features_of(legs.query, legs.rankings))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; ``timings`` in milliseconds per stage.

    ``dense_weight`` is the share the vectors had in fusion, ``None`` where one leg ran alone.
    ``read`` says whether a hit's text is the passage found or what stands around it.
    """

    hits: list[Hit]
    mode: SearchMode
    reranked: bool
    timings: Mapping[str, float] = field(default_factory=dict)
    dense_weight: float | None = None
    read: Reading = "passage"


@dataclass(frozen=True, slots=True)
class _Shape:
    """What becomes of a ranking: how many hits, what each is, whether it is reranked."""

    top_k: int
    read: Reading
    rerank: bool | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a query finds before its legs are fused, and the chunks it names outright."""

    legs: WordingRankings
    named: Sequence[int]


class RetrievalService:
    """Searches one collection at a time."""

    def __init__(
        self,
        store: DocumentStore,
        embedding: EmbeddingService | None,
        analyzer: QueryAnalyzer,
        *,
        settings: RetrievalSettings,
        reranking: RerankingService | None = None,
        lanes: LanesSettings | None = None,
        permit: LaneSemaphore | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._settings = settings
        self._reranking = reranking
        self._lanes = lanes or LanesSettings()
        self._permit = permit
        self._observer = observer or NullObserver()
        self._clock = clock or SystemClock()
        self._legs = Retrievers(store, embedding, analyzer, clock=self._clock)
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
        also: Sequence[str] = (),
        before: str = "",
        top_k: int | None = None,
        mode: SearchMode | None = None,
        rerank: bool | None = None,
        read: Reading | None = None,
        filter: Mapping[str, Any] | None = None,
        timing: Timing | None = None,
        lane: Literal["search"] | None = "search",
    ) -> SearchResult:
        """Return the ``top_k`` best chunks of ``collection`` for ``query``.

        ``also`` are other wordings of the same question, searched beside it; in ``before``, what it
        leans on, stands the law of an article named without one. ``read`` says what a hit is, by
        default the settings do. A request of its own holds a place in the lane; ``lane`` is ``None``
        for a part of another. Raises ``NotFound`` for
        an unknown collection, ``Conflict`` when its vectors come from another embedder,
        ``InvalidInput`` for an empty query.
        """
        if not query.strip():
            raise InvalidInput("the query is empty", hint="send at least one word", param="query")
        wanted = RetrievalQuery(
            collection=collection,
            queries=list(dict.fromkeys((query, *also))),
            mode=mode or self._settings.mode,
            depth=max(top_k or self._settings.top_k, self._settings.candidates),
            filter=filter,
            before=before,
        )
        shape = _Shape(top_k or self._settings.top_k, read or self._settings.read, rerank)
        timing = timing or Timing()
        async with self._place(lane, timing):
            return await self._search(wanted, shape, timing)

    async def cited_by(self, collection: str, texts: Sequence[str], *, limit: int) -> list[Hit]:
        """Return what ``texts``, the nearest first, name of ``collection``, most named first."""
        ranking = await asyncio.to_thread(self._lookups.cited_by, collection, texts)
        return await self._hits(collection, ranking[:limit], None)

    async def candidates(self, collection: str, query: str) -> Candidates:
        """Return what both legs find for ``query``, for those who learn how to weigh them."""
        kept = await self._check(collection, "hybrid")
        wanted = RetrievalQuery(collection, [query], "hybrid", self._settings.candidates)
        found = await self._legs.run(wanted)
        fused = self._fuse(kept, found)
        return Candidates(found.wordings[0], await self._named(kept, wanted, fused.ranking))

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

    async def _search(self, wanted: RetrievalQuery, shape: _Shape, timing: Timing) -> SearchResult:
        started = self._clock.monotonic()
        kept = await self._check(wanted.collection, wanted.mode)
        query = wanted.queries[-1]
        use_rerank = self._reranks(kept, query, shape.rerank)
        found = await self._legs.run(wanted, timing=timing)
        fused = self._fuse(kept, found)
        named = await self._named(kept, wanted, fused.ranking)
        ranking = brought_forward(fused.ranking, named)
        keep = shape.top_k * DEPTH if shape.read == "parent" else shape.top_k
        keep = max(keep, self._settings.rerank_depth) if use_rerank else keep
        hits = await self._hits(wanted.collection, ranking[:keep], found)
        timings = dict(found.timings)
        if use_rerank and hits:
            before = self._clock.monotonic()
            hits = kept_first(await self._rerank(query, hits, timing), named)
            timings["rerank_ms"] = (self._clock.monotonic() - before) * 1e3
        if shape.read == "parent":
            chars = self._settings.parent_chars
            hits = await read_parents(self._store, wanted.collection, hits, chars=chars)
        total = (self._clock.monotonic() - started) * 1e3
        timing.retrieve_ms += total
        timings["total_ms"] = total
        return SearchResult(
            hits=hits[: shape.top_k],
            mode=wanted.mode,
            reranked=use_rerank,
            read=shape.read,
            timings=timings,
            dense_weight=fused.dense_weight,
        )

    def _fuse(self, kept: Collection, found: Retrieved) -> Fused:
        calibration = calibration_of(kept.calibration)
        return fuse(found, settings=self._settings, calibration=calibration)

    def _reranks(self, kept: Collection, query: str, wanted: bool | None) -> bool:
        return reranks(
            query,
            wanted,
            reranking=self._reranking,
            settings=self._settings,
            calibration=calibration_of(kept.calibration),
        )

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

    async def _named(self, kept: Collection, wanted: RetrievalQuery, ranking: Ranking) -> list[int]:
        """Return the chunks of the cases and articles the query names; vectors alone know none."""
        if wanted.mode == "dense":
            return []
        return await asyncio.to_thread(
            self._lookups.chunks,
            kept.name,
            wanted.queries[0],
            ranking,
            metadata=kept.metadata,
            keywords=kept.keywords,
            filter=wanted.filter,
            before=wanted.before,
        )

    async def _hits(self, collection: str, ranking: Ranking, found: Retrieved | None) -> list[Hit]:
        rows = await asyncio.to_thread(self._store.chunks, collection, [c for c, _ in ranking])
        scores = dict(ranking)
        dense, lexical = (
            found.scores(leg) if found is not None else {} for leg in ("dense", "lexical")
        )
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

"""Finds the cut and the search settings that suit the user's own questions.

One half of the questions chooses, step by step: how the collection is cut (where that is wanted),
mode, fusion and weight, the number of candidates, reranking, and how many hits are enough. The other
half, which had no say, decides whether all of it together is better than what is set and how the
collection is cut now. Runs the very service that answers, under other settings; changes nothing.

What looking for better settings found: every trial, what the other half says, what to use.

Frozen values and their JSON; who tries is ``optimise``.

The ways of cutting a collection that are tried against each other, and what one amounts to.

Pure. A cut is searched through its own service, because it may lie in a store of its own.

Cuts a collection anew into a store of its own, to see how it would be searched.

The collection is read and never written. A passage is embedded only where neither the collection
nor an earlier cut holds a vector for its indexed text; words, calibration and metadata come along.
All documents are cut or none: a cut that lacks one could not be compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ondol.app.container import Container
from ondol.app.store_assembly import open_documents
from ondol.core.chunk_options import ChunkOptions, ChunkStrategy
from ondol.core.clock import Clock
from ondol.core.errors import Conflict, InvalidInput, NotFound, OndolError
from ondol.core.settings import Settings
from ondol.core.settings.sections import RetrievalSettings
from ondol.core.types import OnStep
from ondol.documents.ingest_passages import (
    PreparedDocument,
    Vectors,
    cut_passages,
    embed_missing,
    prepare,
)
from ondol.documents.keywords import words_of
from ondol.documents.rechunking import GROUP_CHUNKS, as_read
from ondol.lab.evaluate.answer_evaluation import differences, mean
from ondol.lab.evaluate.datasets import Query, halves
from ondol.lab.evaluate.fusion_calibration import DepthChoice, HitLog, choose_depth
from ondol.lab.evaluate.retrieval_evaluation import RetrievalScores, ask_all
from ondol.lab.evaluate.statistics import Difference
from ondol.search.retrieval import RetrievalService
from ondol.search.vector_choice import MakeSearch, vector_search
from ondol.store.calibration_rows import CalibrationStore
from ondol.store.collection_words import KeywordStore
from ondol.store.documents import DocumentStore
from ondol.store.records import Collection

MOST = 24
"""Cuts tried in one run: each cuts, embeds and stores the whole collection."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A collection as it is cut one way, and the service that searches it.

    ``chunking`` is ``None`` where it was never recorded. ``names`` says what documents are called
    that have another name here than in the collection itself. ``embedded`` passages were embedded
    for it, in ``seconds`` with all else; both are 0 for the collection as it is.
    """

    chunking: ChunkOptions | None
    retrieval: RetrievalService
    collection: str
    passages: int | None = None
    embedded: int = 0
    seconds: float = 0.0
    names: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "chunking": None if self.chunking is None else asdict(self.chunking),
            "passages": self.passages,
            "embedded": self.embedded,
            "cut_seconds": self.seconds,
        }


def candidates(
    now: ChunkOptions | None,
    default: ChunkOptions,
    *,
    strategies: Sequence[ChunkStrategy] = (),
    lengths: Sequence[int] = (),
) -> list[ChunkOptions]:
    """Return every strategy at every length, but for ``now``; where none is given, that of ``now``.

    What is repeated between passages is that of ``now``; ``default`` stands for a cut that was never
    recorded. Raises ``InvalidInput`` for a length that does not exceed what is repeated, and for
    more than ``MOST`` cuts.
    """
    base = now or default
    short = [length for length in lengths if length <= base.overlap]
    if short:
        raise InvalidInput(
            f"passages of about {short[0]} characters cannot repeat {base.overlap} of them",
            hint="try longer ones, or cut the collection with a smaller ingest.chunk_overlap first",
            param="chunk_chars",
        )
    found = [
        ChunkOptions(strategy, length, base.overlap)
        for strategy in dict.fromkeys(strategies or (base.strategy,))
        for length in dict.fromkeys(lengths or (base.target,))
    ]
    if len(found) > MOST:
        raise InvalidInput(
            f"{len(found)} ways of cutting; at most {MOST} are tried in one run",
            hint="name fewer strategies or lengths",
            param="chunking",
        )
    return [one for one in found if one != now]


KEYS = ("mode", "fusion", "dense_weight", "calibration", "candidates", "top_k", "rerank")


@dataclass(frozen=True, slots=True)
class CutTrial:
    """One choice of cut and settings, its nDCG@10 and Recall@10 on the half that chooses.

    ``seconds`` is how long asking took.
    """

    cut: Cut
    settings: RetrievalSettings
    ndcg_at_10: float
    recall_at_10: float
    seconds: float
    hits: HitLog = field(repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        return {
            **changed(self.settings),
            **self.cut.as_json(),
            "ndcg_at_10": self.ndcg_at_10,
            "recall_at_10": self.recall_at_10,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Optimised:
    """What was tried, what the held-out half says of the best, and what to use.

    ``adopted``: the best is better than what is set, as the collection is cut now, on questions that
    had no part in choosing it. ``settings`` and ``cut`` are those to use, with the depth to use.
    ``cut_alone`` is how much nDCG@10 of ``differences`` the cut brings at what is set, ``None`` where
    only one of the two was chosen.
    """

    trials: tuple[CutTrial, ...]
    chosen: CutTrial
    chosen_on: int
    held_out: int
    before: RetrievalScores
    after: RetrievalScores
    differences: dict[str, Difference]
    cut_alone: Difference | None
    adopted: bool
    depth: DepthChoice

    @property
    def settings(self) -> RetrievalSettings:
        used = self.chosen if self.adopted else self.trials[0]
        return used.settings.model_copy(update={"top_k": self.depth.k})

    @property
    def cut(self) -> Cut:
        return self.chosen.cut if self.adopted else self.trials[0].cut

    @property
    def recut(self) -> bool:
        """Whether the collection is to be cut anew."""
        return self.cut is not self.trials[0].cut

    @property
    def unsure(self) -> bool:
        """Whether the difference between what is set and the best may be chance."""
        gained = self.differences["ndcg_at_10"]
        return gained.low <= 0 <= gained.high

    @property
    def cuts(self) -> tuple[CutTrial, ...]:
        """The first trial on each cut: all at what is set."""
        first: dict[int, CutTrial] = {}
        for one in self.trials:
            first.setdefault(id(one.cut), one)
        return tuple(first.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "settings": changed(self.settings),
            "chunking": self.cut.as_json()["chunking"],
            "recut": self.recut,
            "adopted": self.adopted,
            "unsure": self.unsure,
            "chosen": {**changed(self.chosen.settings), **self.chosen.cut.as_json()},
            "chosen_on": self.chosen_on,
            "held_out": self.held_out,
            "before": self.before.figures(),
            "after": self.after.figures(),
            "differences": {figure: asdict(one) for figure, one in self.differences.items()},
            "cut_alone": None if self.cut_alone is None else asdict(self.cut_alone),
            "top_k": self.depth.as_json(),
            "trials": [trial.as_json() for trial in self.trials],
        }


def changed(settings: RetrievalSettings) -> dict[str, Any]:
    """Return the settings that optimising chooses, by their dotted keys."""
    keys = (*KEYS, "rerank_depth") if settings.rerank == "on" else KEYS
    return {f"retrieval.{key}": getattr(settings, key) for key in keys}


OnCut = Callable[[], None]
"""Told of each document that is cut."""


@dataclass(slots=True)
class _Making:
    """One cut while it is made; ``name`` is its collection in the scratch store."""

    name: str
    chunking: ChunkOptions
    passages: int = 0
    embedded: int = 0


class Cutting:
    """Makes cuts of one collection, ``kept``, in ``scratch``; use ``cutting`` to get one."""

    def __init__(
        self, container: Container, kept: Collection, scratch: DocumentStore, *, clock: Clock
    ) -> None:
        self._store = container.store
        self._embedding = container.embedding
        self._analyzer = container.analyzer
        self._retrieval = container.retrieval_over(scratch, container.embedding)
        self._kept = kept
        self._scratch = scratch
        self._clock = clock
        self._made: list[str] = []

    @property
    def documents(self) -> int:
        """How many documents each cut takes."""
        return self._kept.documents

    async def make(self, chunking: ChunkOptions, *, told: OnCut | None = None) -> Cut:
        """Return the collection as ``chunking`` cuts it; raises the first document's error."""
        started = self._clock.monotonic()
        making = _Making(f"cut-{len(self._made)}", chunking)
        await asyncio.to_thread(self._create, making)
        sources = await asyncio.to_thread(self._store.names, self._kept.name)
        group: list[PreparedDocument] = []
        # In the order of their sources, as rechunking would store them.
        for source in sorted(sources):
            prepared = await asyncio.to_thread(self._prepare, making, sources[source])
            group += [prepared] if prepared is not None else []
            if sum(len(one.passages) for one in group) >= GROUP_CHUNKS:
                await self._store_group(making, group)
                group = []
            if told is not None:
                told()
        await self._store_group(making, group)
        names = await asyncio.to_thread(self._finish, making, sources)
        self._made.append(making.name)
        return Cut(
            chunking,
            self._retrieval,
            making.name,
            passages=making.passages,
            embedded=making.embedded,
            seconds=self._clock.monotonic() - started,
            names=names,
        )

    def _create(self, making: _Making) -> None:
        kept = self._kept
        self._scratch.create_collection(
            making.name,
            embedder=kept.embedder,
            dimensions=kept.dimensions,
            metadata=kept.metadata,
            chunking=making.chunking,
        )
        KeywordStore(self._scratch.database).set(making.name, kept.keywords)
        CalibrationStore(self._scratch.database).set(making.name, kept.calibration)

    def _prepare(self, making: _Making, name: str) -> PreparedDocument | None:
        """Return the document cut; ``None`` where it is gone by now, or nothing is in it."""
        try:
            stored = self._store.document(self._kept.name, name)
        except NotFound:
            return None
        document = as_read(stored)
        passages = cut_passages(document, making.chunking)
        if not passages:
            return None
        return prepare(
            document,
            passages,
            digest=stored.digest,
            container=stored.container,
            analyzer=self._analyzer,
            dictionary=words_of(self._kept.keywords).dictionary,
            held=self._held(stored.source),
        )

    def _held(self, source: str) -> Vectors:
        """Return all vectors there are for the texts of ``source``; the collection's own first."""
        places = [(self._scratch, name) for name in self._made]
        return {
            one.indexed: one.vector
            for store, name in [*places, (self._store, self._kept.name)]
            for one in store.passages.kept(name, source)
            if one.indexed is not None
        }

    async def _store_group(self, making: _Making, group: Sequence[PreparedDocument]) -> None:
        for prepared, vectors in zip(
            group, await embed_missing(group, self._embedding), strict=True
        ):
            if isinstance(vectors, OndolError):
                raise vectors
            await asyncio.to_thread(
                self._scratch.put_document,
                making.name,
                prepared.document,
                digest=prepared.digest,
                chunks=prepared.chunks,
                vectors=vectors,
                container=prepared.container,
            )
            making.passages += len(prepared.passages)
            making.embedded += len(prepared.missing)

    def _finish(self, making: _Making, sources: dict[str, str]) -> dict[str, str]:
        """Make now what searches would wait for; return the names that differ, and the true ones."""
        self._scratch.refresh_vectors(making.name)
        self._scratch.refresh_keywords(making.name)
        here = self._scratch.names(making.name)
        return {name: sources[s] for s, name in here.items() if name != sources[s]}


@asynccontextmanager
async def cutting(
    container: Container, kept: Collection, folder: Path, *, clock: Clock
) -> AsyncIterator[Cutting]:
    """Yield what cuts the collection ``kept`` of ``container`` anew, into a store in ``folder``.

    Raises ``Conflict`` where the collection is of another embedder than the one loaded.
    """
    model = container.embedding.model
    if kept.embedder != model:
        raise Conflict(
            f"collection {kept.name!r} was embedded with {kept.embedder}, "
            f"the loaded embedder is {model}",
            hint=f"set models.embedder = {kept.embedder!r}",
            code="embedder_mismatch",
        )
    search = scratch_search(folder, container.settings)
    scratch = await asyncio.to_thread(open_documents, folder, clock=clock, vector_search=search)
    try:
        yield Cutting(container, kept, scratch, clock=clock)
    finally:
        await asyncio.to_thread(scratch.close)


def scratch_search(folder: Path, settings: Settings) -> MakeSearch | None:
    """Return the vector search of ``settings`` for a store in ``folder``, ``None`` for the exact scan.

    Never PostgreSQL: its tables go by the number of a collection, and belong to the real ones.
    """
    if settings.vectors.index == "postgres":
        return None
    return vector_search(settings.model_copy(update={"home": folder}))


_WEIGHTS: dict[Literal["scores", "ranks"], tuple[float, ...]] = {
    "scores": (0.3, 0.4, 0.5, 0.6, 0.7),
    "ranks": (0.3, 0.5, 0.7),
}
_CANDIDATES = (50, 200)
_RERANK_DEPTHS = (20, 50)
CHUNKS = 20
"""Hits asked for, or as many as are set: few, as a person does, so that candidates and reranking
depths can tell."""


class Optimiser:
    """Tries settings on one collection. ``dense`` and ``rerank``: whether there are such models.

    ``cutting`` makes the cuts to try; without it the collection stays as it is cut.
    """

    def __init__(
        self,
        retrieval: RetrievalService,
        *,
        now: Callable[[], float],
        dense: bool = True,
        rerank: bool = False,
        cutting: Cutting | None = None,
    ) -> None:
        self._retrieval = retrieval
        self._now = now
        self._dense = dense
        self._rerank = rerank
        self._cutting = cutting
        self._done = 0
        self._total = 0
        self._told: OnStep | None = None

    async def optimise(
        self,
        kept: Collection,
        queries: Sequence[Query],
        current: RetrievalSettings,
        *,
        cuts: Sequence[ChunkOptions] = (),
        told: OnStep | None = None,
    ) -> Optimised:
        """Choose on one half of ``queries``, decide on the other; ``told`` hears how far it is.

        Raises ``InvalidInput`` for fewer than 16 questions with a judged document, and what cutting
        and embedding raise.
        """
        choosing, deciding = halves(queries)
        self._plan(len(choosing), len(deciding), len(cuts))
        self._told = told
        own = Cut(kept.chunking, self._retrieval, kept.name, passages=kept.chunks)
        trials = [await self._try(own, choosing, current)]
        trials += [await self._try(cut, choosing, current) async for cut in self._cut(cuts)]
        # The first of equals: what is set already, or what was simpler.
        best = max(trials, key=lambda one: one.ndcg_at_10)
        for step in (self._fusions, self._candidates, self._rerankings):
            for settings in step(best.settings):
                known = (one.settings for one in trials if one.cut is best.cut)
                if all(changed(settings) != changed(one) for one in known):
                    trials.append(await self._try(best.cut, choosing, settings))
            best = max(trials, key=lambda one: one.ndcg_at_10)
        return await self._decide(trials, best, choosing, deciding)

    async def _decide(
        self, trials: list[CutTrial], best: CutTrial, choosing: list[Query], deciding: list[Query]
    ) -> Optimised:
        own, hits_before, hits_after = trials[0], HitLog(), HitLog()
        before = await self._score(own.cut, deciding, own.settings, hits_before)
        after = await self._score(best.cut, deciding, best.settings, hits_after)
        alone = None
        if best.cut is not own.cut and best.settings != own.settings:
            cut = await self._score(best.cut, deciding, own.settings, HitLog())
            alone = differences(before.queries, cut.queries)["ndcg_at_10"]
        found = differences(before.queries, after.queries)
        adopted = found["ndcg_at_10"].mean > 0
        used, hits = (best, hits_after) if adopted else (own, hits_before)
        return Optimised(
            trials=tuple(trials),
            chosen=best,
            chosen_on=len(choosing),
            held_out=len(deciding),
            before=before,
            after=after,
            differences=found,
            cut_alone=alone,
            adopted=adopted,
            depth=choose_depth(used.hits, hits, hits_before, own.settings.top_k),
        )

    def _plan(self, choosing: int, deciding: int, cuts: int) -> None:
        fusions = 2 + sum(map(len, _WEIGHTS.values())) if self._dense else 0
        trials = 1 + cuts + fusions + len(_CANDIDATES) + (len(_RERANK_DEPTHS) + 1) * self._rerank
        documents = self._cutting.documents if self._cutting is not None else 0
        self._done, self._total = 0, trials * choosing + cuts * documents
        self._total += (3 if cuts else 2) * deciding

    def _fusions(self, best: RetrievalSettings) -> list[RetrievalSettings]:
        if not self._dense:
            return []
        alone = [best.model_copy(update={"mode": mode}) for mode in ("lexical", "dense")]
        # What was measured for the collection would go before the weight that is tried.
        tried = {"mode": "hybrid", "calibration": "off"}
        return alone + [
            best.model_copy(update={**tried, "fusion": fusion, "dense_weight": weight})
            for fusion, weights in _WEIGHTS.items()
            for weight in weights
        ]

    def _candidates(self, best: RetrievalSettings) -> list[RetrievalSettings]:
        return [best.model_copy(update={"candidates": count}) for count in _CANDIDATES]

    def _rerankings(self, best: RetrievalSettings) -> list[RetrievalSettings]:
        if not self._rerank:
            return []
        off = best.model_copy(update={"rerank": "off"})
        deep = ({"rerank": "on", "rerank_depth": depth} for depth in _RERANK_DEPTHS)
        return [off, *(best.model_copy(update=one) for one in deep)]

    async def _cut(self, cuts: Sequence[ChunkOptions]) -> AsyncIterator[Cut]:
        if self._cutting is None:
            return
        for chunking in cuts:
            note = f"cutting {chunking.strategy} {chunking.target}"
            yield await self._cutting.make(chunking, told=partial(self._step, note))

    async def _try(
        self, cut: Cut, queries: Sequence[Query], settings: RetrievalSettings
    ) -> CutTrial:
        hits = HitLog()
        scores = await self._score(cut, queries, settings, hits)
        return CutTrial(
            cut,
            settings,
            mean(scores.queries, "ndcg_at_10"),
            mean(scores.queries, "recall_at_10"),
            scores.seconds,
            hits,
        )

    async def _score(
        self, cut: Cut, queries: Sequence[Query], settings: RetrievalSettings, hits: HitLog
    ) -> RetrievalScores:
        return await ask_all(
            cut.retrieval.under(settings),
            cut.collection,
            queries,
            mode=settings.mode,
            rerank=None if self._rerank else False,
            now=self._now,
            chunks=max(CHUNKS, settings.top_k),
            querying=lambda _done, _all: self._step("queries"),
            names=cut.names,
            seen=hits.add,
        )

    def _step(self, note: str) -> None:
        """Count one question or one document as done."""
        self._done += 1
        if self._told is not None:
            self._told(self._done, max(self._total, self._done), note)

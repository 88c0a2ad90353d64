"""Cuts a collection anew into a store of its own, to see how it would be searched.

The collection is read and never written. A passage is embedded only where neither the collection
nor an earlier cut holds a vector for its indexed text; words, calibration and metadata come along.
All documents are cut or none: a cut that lacks one could not be compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ondol.app.store_assembly import open_documents
from ondol.core.chunking import Chunking
from ondol.core.clock import Clock
from ondol.core.errors import Conflict, NotFound, OndolError
from ondol.core.settings import Settings
from ondol.services.container import Container
from ondol.services.evaluation.cuts import Cut
from ondol.services.ingest_passages import Prepared, Vectors, cut_passages, embed_missing, prepare
from ondol.services.ingest_rechunking import GROUP_CHUNKS, as_read
from ondol.services.query_words import words_of
from ondol.services.vector_choice import MakeSearch, vector_search
from ondol.store.calibration_rows import CalibrationStore
from ondol.store.documents import DocumentStore
from ondol.store.keyword_rows import KeywordStore
from ondol.store.records import Collection

Told = Callable[[], None]
"""Told of each document that is cut."""


@dataclass(slots=True)
class _Making:
    """One cut while it is made; ``name`` is its collection in the scratch store."""

    name: str
    chunking: Chunking
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

    async def make(self, chunking: Chunking, *, told: Told | None = None) -> Cut:
        """Return the collection as ``chunking`` cuts it; raises the first document's error."""
        started = self._clock.monotonic()
        making = _Making(f"cut-{len(self._made)}", chunking)
        await asyncio.to_thread(self._create, making)
        sources = await asyncio.to_thread(self._store.names, self._kept.name)
        group: list[Prepared] = []
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

    def _prepare(self, making: _Making, name: str) -> Prepared | None:
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

    async def _store_group(self, making: _Making, group: Sequence[Prepared]) -> None:
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

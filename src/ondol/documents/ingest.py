"""Files and records into a collection: read, compare, chunk, embed, store one by one.

A document is stored in one transaction or not at all; what is unchanged is neither read again nor
embedded; one that fails is reported and the rest goes on. Knows no HTTP and no file format.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from ondol.core.chunk_options import ChunkOptions, ChunkStrategy
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import Conflict, OndolError, ReadError
from ondol.core.events import DocumentIngested, NullObserver, Observer
from ondol.core.settings.sections import IngestSettings
from ondol.core.types import FloatMatrix, ReadDocument
from ondol.documents.chunking.index_words import TextAnalyzer
from ondol.documents.ingest_passages import PreparedDocument, cut_passages, embed_missing, prepare
from ondol.documents.ingest_report import IngestFailure, IngestReport, IngestRun, Progress
from ondol.documents.ingest_sources import (
    as_async,
    document_digest,
    duplicate,
    empty,
    expand,
    file_digest,
    iterate,
    renamed,
)
from ondol.documents.keywords import words_for_ingest
from ondol.documents.readers import ReadFailure, ReadLimits, read_bytes
from ondol.documents.rechunking import Rechunked, Rechunking
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.store.documents import DocumentStore

SIDE_BY_SIDE = 4
"""Collections that are ingested into at once: each has a reader process and a group in memory."""

GROUP_CHUNKS = 128
"""How many chunks are embedded together: enough for full batches, little enough to lose."""


class Reader(Protocol):
    """Reads a file into documents and failures; may do so in another process."""

    def read(self, path: Path, *, limits: ReadLimits) -> Iterator[ReadDocument | ReadFailure]: ...


class IngestService:
    """Takes documents into collections; one ingest per collection runs at a time."""

    def __init__(
        self,
        store: DocumentStore,
        embedding: EmbeddingService,
        analyzer: TextAnalyzer,
        reader: Reader,
        *,
        settings: IngestSettings,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self.embedding = embedding
        self._analyzer = analyzer
        self._reader = reader
        self._settings = settings
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)
        self._limits = ReadLimits(
            max_file_bytes=settings.max_file_bytes,
            max_pages=settings.max_pages,
            max_chars=settings.max_chars,
            seconds=settings.read_seconds,
            ocr=settings.ocr,
            ocr_languages=settings.ocr_languages,
            ocr_page_seconds=settings.ocr_page_seconds,
        )

    async def ingest_paths(
        self,
        collection: str,
        paths: Sequence[Path],
        *,
        chunking: ChunkStrategy | None = None,
        recut: bool = False,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Take in files and, recursively, folders; creates the collection if it is new.

        A new collection is cut by ``chunking``, by default as the settings say, and stays so; with
        ``recut`` one that is cut otherwise is recorded anew, and what comes in is cut again.
        Raises ``NotFound`` when a path does not exist, before anything is read, and ``Conflict``
        for another ``chunking`` than the collection's.
        """
        files = await asyncio.to_thread(expand, paths)
        async with self._turn(collection):
            run = await self._begin(collection, chunking, recut=recut)
            run.plan(files, progress)
            for path in files:
                await self._ingest_file(run, path)
            return self._end(run)

    async def ingest_upload(self, collection: str, name: str, data_path: Path) -> IngestReport:
        """Take in one uploaded file under its own name; ``data_path`` is where its bytes lie."""
        async with self._turn(collection):
            run = await self._begin(collection)
            await self._ingest_file(run, data_path, source=f"upload:/{name}", name=name)
            return self._end(run)

    async def ingest_records(
        self, collection: str, records: Sequence[Mapping[str, Any]]
    ) -> IngestReport:
        """Take in JSON records (``text``, optional ``id``, ``title``, ``metadata``)."""
        data = json.dumps(list(records), ensure_ascii=True, default=str).encode()
        async with self._turn(collection):
            run = await self._begin(collection)
            results = await asyncio.to_thread(
                lambda: list(read_bytes(data, name="records.json", limits=self._limits))
            )
            sources = [r.source for r in results]
            known = await asyncio.to_thread(self._store.digests, collection, sources=sources)
            await self._take(run, as_async(results), known=known, container=None, digest=None)
            return self._end(run)

    async def rechunk(
        self,
        collection: str,
        strategy: ChunkStrategy | None = None,
        *,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Rechunked:
        """Cut what a collection holds anew from its stored text; embeds only what that changes.

        ``strategy`` defaults to the collection's own; lengths are those of the settings. Stopped
        at any moment, the next call goes on. ``dry_run`` changes nothing and embeds nothing: it
        says what would be done. ``progress`` hears of documents done and in all.
        Raises ``NotFound`` for an unknown collection, ``Conflict`` for another embedder's.
        """
        async with self._turn(collection):
            found = await asyncio.to_thread(self._store.collection, collection)
            kept = found.chunking.strategy if found.chunking is not None else None
            run = await self._begin(collection, strategy or kept, recut=True, dry_run=dry_run)
            rechunking = Rechunking(
                self._store,
                self.embedding,
                self._analyzer,
                dictionary=run.dictionary,
                clock=self._clock,
            )
            return await rechunking.run(
                collection, run.chunking, run.recipe, dry_run=dry_run, progress=progress
            )

    def chunking(self, strategy: ChunkStrategy | None = None) -> ChunkOptions:
        """Return how a new collection is cut: by ``strategy``, by default as the settings say."""
        kept = self._settings
        return ChunkOptions(strategy or kept.chunking, kept.chunk_chars, kept.chunk_overlap)

    async def _begin(
        self,
        collection: str,
        strategy: ChunkStrategy | None = None,
        *,
        recut: bool = False,
        dry_run: bool = False,
    ) -> IngestRun:
        wanted = self.chunking(strategy)
        found = await asyncio.to_thread(
            self._store.create_collection,
            collection,
            embedder=self.embedding.model,
            dimensions=self.embedding.dimensions,
            chunking=wanted,
            exist_ok=True,
        )
        kept = found.chunking
        if kept is not None and not recut and strategy not in (None, kept.strategy):
            raise Conflict(
                f"collection {collection!r} is cut by {kept.strategy!r}, not {strategy!r}",
                hint=f"ondol collections rechunk {collection} --chunking {strategy}",
                param="chunking",
            )
        if kept is None or (recut and kept != wanted):
            if not dry_run:
                await asyncio.to_thread(self._store.passages.record, collection, wanted)
            kept = wanted
        return IngestRun(
            collection,
            self._clock.monotonic(),
            chunking=kept,
            model=self.embedding.model,
            dictionary=await asyncio.to_thread(words_for_ingest, self._store, collection),
        )

    @asynccontextmanager
    async def _turn(self, collection: str) -> AsyncIterator[None]:
        """Hold the one ingest that ``collection`` may have, and a place among all."""
        turn = self._turns.get(collection)
        if turn is None:
            turn = self._turns[collection] = asyncio.Lock()
        async with turn, self._places:
            yield

    def _end(self, run: IngestRun) -> IngestReport:
        run.report.seconds = self._clock.monotonic() - run.started
        return run.report

    async def _ingest_file(
        self, run: IngestRun, path: Path, *, source: str | None = None, name: str | None = None
    ) -> None:
        identity = source or str(path)
        try:
            digest = await asyncio.to_thread(file_digest, path, run.recipe)
        except OSError as error:
            self._fail(
                run,
                identity,
                ReadError(
                    f"{identity}: {error.strerror}",
                    hint="check that the file is readable",
                    code="unreadable",
                ),
            )
            return
        known = await asyncio.to_thread(self._store.digests, run.collection, container=identity)
        if known and set(known.values()) == {digest}:
            self._unchanged(run, len(known))
        else:
            results = iterate(lambda: self._reader.read(path, limits=self._limits))
            if source is not None:
                results = renamed(results, str(path), source, name or source)
            seen, clean = await self._take(
                run, results, known=known, container=identity, digest=digest
            )
            stale = [s for s in known if s not in seen]
            if clean and stale:
                await asyncio.to_thread(self._store.delete_sources, run.collection, stale)
                run.report.removed += len(stale)
        run.advance(path)

    async def _take(
        self,
        run: IngestRun,
        results: AsyncIterator[ReadDocument | ReadFailure],
        *,
        known: Mapping[str, str],
        container: str | None,
        digest: str | None,
    ) -> tuple[set[str], bool]:
        """Store every document of ``results``; return the sources seen and whether none failed."""
        seen: set[str] = set()
        failures = len(run.report.failed)
        group: list[PreparedDocument] = []
        try:
            async for result in results:
                if isinstance(result, ReadFailure):
                    self._fail(run, result.source, result.error)
                    continue
                if result.source in seen:
                    self._fail(run, result.source, duplicate(result.source))
                    continue
                seen.add(result.source)
                own = self._digest_of(run, result, container, digest)
                if known.get(result.source) == own:
                    self._unchanged(run, 1)
                    continue
                prepared = await asyncio.to_thread(self._prepare, run, result, own, container)
                if not prepared.passages:
                    self._fail(run, result.source, empty(result.source))
                    continue
                run.report.warnings.extend(f"{result.source}: {w}" for w in result.warnings)
                group.append(prepared)
                if sum(len(p.passages) for p in group) >= GROUP_CHUNKS:
                    await self._store_after(run, group)
                    group = []
            await self._store_after(run, group)
        finally:
            await run.stored()
        return seen, len(run.report.failed) == failures

    def _digest_of(
        self, run: IngestRun, document: ReadDocument, container: str | None, digest: str | None
    ) -> str:
        """The file's digest stands for its one document; a record has a digest of its own."""
        if digest is not None and document.source == container:
            return digest
        return document_digest(document, run.recipe)

    def _prepare(
        self, run: IngestRun, document: ReadDocument, digest: str, container: str | None
    ) -> PreparedDocument:
        kept = self._store.passages.kept(run.collection, document.source)
        return prepare(
            document,
            cut_passages(document, run.chunking),
            digest=digest,
            container=container,
            analyzer=self._analyzer,
            dictionary=run.dictionary,
            held={one.indexed: one.vector for one in kept if one.indexed is not None},
        )

    async def _store_after(self, run: IngestRun, group: Sequence[PreparedDocument]) -> None:
        """Embed and store ``group`` in the background once the group before it is stored.

        One group is embedded while the next is read, chunked and analysed; no more are in flight.
        """
        await run.stored()
        if group:
            run.storing = asyncio.create_task(self._store_group(run, group))

    async def _store_group(self, run: IngestRun, group: Sequence[PreparedDocument]) -> None:
        started = self._clock.monotonic()
        for prepared, vectors in zip(
            group, await embed_missing(group, self.embedding), strict=True
        ):
            if isinstance(vectors, OndolError):
                self._fail(run, prepared.document.source, vectors)
                continue
            await self._store_one(run, prepared, vectors, started)

    async def _store_one(
        self, run: IngestRun, prepared: PreparedDocument, vectors: FloatMatrix, started: float
    ) -> None:
        outcome = await asyncio.to_thread(
            self._store.put_document,
            run.collection,
            prepared.document,
            digest=prepared.digest,
            chunks=prepared.chunks,
            vectors=vectors,
            container=prepared.container,
        )
        if outcome == "added":
            run.report.added += 1
        else:
            run.report.updated += 1
        run.report.chunks += len(prepared.passages)
        run.report.embedded += len(prepared.missing)
        run.tell()
        self._observer.observe(
            DocumentIngested(
                collection=run.collection,
                source=prepared.document.source,
                outcome=outcome,
                chunks=len(prepared.passages),
                seconds=self._clock.monotonic() - started,
            )
        )

    def _unchanged(self, run: IngestRun, count: int) -> None:
        run.report.unchanged += count
        run.tell()

    def _fail(self, run: IngestRun, source: str, error: OndolError) -> None:
        run.report.failed.append(IngestFailure(source, error.code, error.message, error.hint))
        self._observer.observe(
            DocumentIngested(
                collection=run.collection, source=source, outcome="failed", code=error.code
            )
        )

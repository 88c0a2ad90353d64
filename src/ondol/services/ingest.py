"""Files and records into a collection: read, compare, chunk, embed, store one by one.

A document is stored in one transaction or not at all; what is unchanged is neither read again nor
embedded; one that fails is reported and the rest goes on. Knows no HTTP and no file format.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import OndolError, ReadError
from ondol.core.observe import DocumentIngested, NullObserver, Observer
from ondol.core.setting_sections import IngestSettings
from ondol.core.types import Passage, ReadDocument
from ondol.services.embedding import EmbeddingService
from ondol.services.ingest_report import IngestFailure, IngestReport, Progress, Run
from ondol.services.ingest_sources import (
    as_async,
    document_digest,
    duplicate,
    empty,
    expand,
    file_digest,
    iterate,
    renamed,
)
from ondol.store.documents import DocumentStore
from ondol.store.records import NewChunk
from ondol.text.chunking import chunk
from ondol.text.indexing import RECIPE, indexed_text
from ondol.text.own_names import own_keys
from ondol.text.readers import ReadFailure, ReadLimits, read_bytes

GROUP_CHUNKS = 128
"""How many chunks are embedded together: enough for full batches, little enough to lose."""


class Reader(Protocol):
    """Reads a file into documents and failures; may do so in another process."""

    def read(self, path: Path, *, limits: ReadLimits) -> Iterator[ReadDocument | ReadFailure]: ...


class Analyzer(Protocol):
    """Turns texts into keyword tokens."""

    def tokens_many(self, texts: Sequence[str]) -> list[list[str]]: ...


@dataclass(frozen=True, slots=True)
class _Prepared:
    document: ReadDocument
    digest: str
    container: str | None
    passages: list[Passage]
    tokens: list[list[str]]
    texts: list[str]


class IngestService:
    """Takes documents into collections; one ingest per collection runs at a time."""

    def __init__(
        self,
        store: DocumentStore,
        embedding: EmbeddingService,
        analyzer: Analyzer,
        reader: Reader,
        *,
        settings: IngestSettings,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._analyzer = analyzer
        self._reader = reader
        self._settings = settings
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()
        self._lock = asyncio.Lock()
        self._limits = ReadLimits(
            max_file_bytes=settings.max_file_bytes,
            max_pages=settings.max_pages,
            max_chars=settings.max_chars,
            seconds=settings.read_seconds,
        )

    async def ingest_paths(
        self, collection: str, paths: Sequence[Path], *, progress: Progress | None = None
    ) -> IngestReport:
        """Take in files and, recursively, folders; creates the collection if it is new.

        Raises ``NotFound`` when a path does not exist, before anything is read.
        """
        files = await asyncio.to_thread(expand, paths)
        async with self._lock:
            run = await self._begin(collection)
            run.plan(files, progress)
            for path in files:
                await self._ingest_file(run, path)
            return self._end(run)

    async def ingest_upload(self, collection: str, name: str, data_path: Path) -> IngestReport:
        """Take in one uploaded file under its own name; ``data_path`` is where its bytes lie."""
        async with self._lock:
            run = await self._begin(collection)
            await self._ingest_file(run, data_path, source=f"upload:/{name}", name=name)
            return self._end(run)

    async def ingest_records(
        self, collection: str, records: Sequence[Mapping[str, Any]]
    ) -> IngestReport:
        """Take in JSON records (``text``, optional ``id``, ``title``, ``metadata``)."""
        data = json.dumps(list(records), ensure_ascii=True, default=str).encode()
        async with self._lock:
            run = await self._begin(collection)
            results = await asyncio.to_thread(
                lambda: list(read_bytes(data, name="records.json", limits=self._limits))
            )
            sources = [r.source for r in results]
            known = await asyncio.to_thread(self._store.digests, collection, sources=sources)
            await self._take(run, as_async(results), known=known, container=None, digest=None)
            return self._end(run)

    async def _begin(self, collection: str) -> Run:
        await asyncio.to_thread(
            self._store.create_collection,
            collection,
            embedder=self._embedding.model,
            dimensions=self._embedding.dimensions,
            exist_ok=True,
        )
        return Run(collection, self._clock.monotonic())

    def _end(self, run: Run) -> IngestReport:
        run.report.seconds = self._clock.monotonic() - run.started
        return run.report

    async def _ingest_file(
        self, run: Run, path: Path, *, source: str | None = None, name: str | None = None
    ) -> None:
        identity = source or str(path)
        try:
            digest = await asyncio.to_thread(file_digest, path, self._recipe())
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
        run: Run,
        results: AsyncIterator[ReadDocument | ReadFailure],
        *,
        known: Mapping[str, str],
        container: str | None,
        digest: str | None,
    ) -> tuple[set[str], bool]:
        """Store every document of ``results``; return the sources seen and whether none failed."""
        seen: set[str] = set()
        failures = len(run.report.failed)
        group: list[_Prepared] = []
        try:
            async for result in results:
                if isinstance(result, ReadFailure):
                    self._fail(run, result.source, result.error)
                    continue
                if result.source in seen:
                    self._fail(run, result.source, duplicate(result.source))
                    continue
                seen.add(result.source)
                own = self._digest_of(result, container, digest)
                if known.get(result.source) == own:
                    self._unchanged(run, 1)
                    continue
                prepared = await asyncio.to_thread(self._prepare, result, own, container)
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

    def _digest_of(self, document: ReadDocument, container: str | None, digest: str | None) -> str:
        """The file's digest stands for its one document; a record has a digest of its own."""
        if digest is not None and document.source == container:
            return digest
        return document_digest(document, self._recipe())

    def _prepare(self, document: ReadDocument, digest: str, container: str | None) -> _Prepared:
        passages = chunk(
            document,
            target_chars=self._settings.chunk_chars,
            overlap_chars=self._settings.chunk_overlap,
        )
        texts = [indexed_text(document, passage) for passage in passages]
        words = self._analyzer.tokens_many(texts)
        keys = own_keys(document, passages)
        tokens = [[*found, *own] for found, own in zip(words, keys, strict=True)]
        return _Prepared(document, digest, container, passages, tokens, texts)

    async def _store_after(self, run: Run, group: Sequence[_Prepared]) -> None:
        """Embed and store ``group`` in the background once the group before it is stored.

        One group is embedded while the next is read, chunked and analysed; no more are in flight.
        """
        await run.stored()
        if group:
            run.storing = asyncio.create_task(self._store_group(run, group))

    async def _store_group(self, run: Run, group: Sequence[_Prepared]) -> None:
        texts = [text for prepared in group for text in prepared.texts]
        started = self._clock.monotonic()
        vectors = await self._embedding.embed_each(texts, role="document")
        offset = 0
        for prepared in group:
            rows = vectors[offset : offset + len(prepared.texts)]
            offset += len(prepared.texts)
            error = next((row for row in rows if isinstance(row, OndolError)), None)
            if error is not None:
                self._fail(run, prepared.document.source, error)
                continue
            await self._store_one(run, prepared, rows, started)

    async def _store_one(
        self, run: Run, prepared: _Prepared, rows: Sequence[Any], started: float
    ) -> None:
        import numpy as np

        chunks = [
            NewChunk(passage=passage, tokens=tokens)
            for passage, tokens in zip(prepared.passages, prepared.tokens, strict=True)
        ]
        outcome = await asyncio.to_thread(
            self._store.put_document,
            run.collection,
            prepared.document,
            digest=prepared.digest,
            chunks=chunks,
            vectors=np.stack(rows),
            container=prepared.container,
        )
        if outcome == "added":
            run.report.added += 1
        else:
            run.report.updated += 1
        run.report.chunks += len(chunks)
        run.tell()
        self._observer.observe(
            DocumentIngested(
                collection=run.collection,
                source=prepared.document.source,
                outcome=outcome,
                chunks=len(chunks),
                seconds=self._clock.monotonic() - started,
            )
        )

    def _unchanged(self, run: Run, count: int) -> None:
        run.report.unchanged += count
        run.tell()

    def _fail(self, run: Run, source: str, error: OndolError) -> None:
        run.report.failed.append(IngestFailure(source, error.code, error.message, error.hint))
        self._observer.observe(
            DocumentIngested(
                collection=run.collection, source=source, outcome="failed", code=error.code
            )
        )

    def _recipe(self) -> str:
        s = self._settings
        return f"{RECIPE}:{self._embedding.model}:{s.chunk_chars}:{s.chunk_overlap}"

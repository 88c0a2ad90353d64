"""Files and records into a collection: read, compare, chunk, embed, store one by one.

A document is stored in one transaction or not at all; what is unchanged is neither read again nor
embedded; one that fails is reported and the rest goes on. Knows no HTTP and no file format.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import InvalidInput, NotFound, OndolError, ReadError
from ondol.core.observe import DocumentIngested, NullObserver, Observer
from ondol.core.settings import IngestSettings
from ondol.core.types import Passage, ReadDocument
from ondol.services.embedding import EmbeddingService
from ondol.store.documents import DocumentStore, NewChunk
from ondol.text.chunking import chunk
from ondol.text.indexing import RECIPE, indexed_text
from ondol.text.readers import ReadFailure, ReadLimits

GROUP_CHUNKS = 128
"""How many chunks are embedded together: enough for full batches, little enough to lose."""


class Reader(Protocol):
    """Reads a file into documents and failures; may do so in another process."""

    def read(self, path: Path, *, limits: ReadLimits) -> Iterator[ReadDocument | ReadFailure]: ...


class Analyzer(Protocol):
    """Turns texts into keyword tokens."""

    def tokens_many(self, texts: Sequence[str]) -> list[list[str]]: ...


@dataclass(frozen=True, slots=True)
class IngestFailure:
    """One source that was not taken in, why, and the remedy."""

    source: str
    code: str
    error: str
    hint: str


@dataclass(slots=True)
class IngestReport:
    """What an ingest did; counts are documents, ``chunks`` are those embedded now."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[IngestFailure] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far an ingest is; ``source`` is the file in hand."""

    done_files: int
    total_files: int
    bytes_done: int
    bytes_total: int
    documents: int
    chunks: int
    source: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    document: ReadDocument
    digest: str
    container: str | None
    passages: list[Passage]
    tokens: list[list[str]]
    texts: list[str]


Progress = Callable[[IngestProgress], None]


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
        files = await asyncio.to_thread(_expand, paths)
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
            await self._ingest_file(run, data_path, source=f"upload:{name}", name=name)
            return self._end(run)

    async def ingest_records(
        self, collection: str, records: Sequence[Mapping[str, Any]]
    ) -> IngestReport:
        """Take in JSON records (``text``, optional ``id``, ``title``, ``metadata``)."""
        from ondol.text.readers.records import read_records

        async with self._lock:
            run = await self._begin(collection)
            results = await asyncio.to_thread(lambda: list(read_records(records, source="record")))
            sources = [r.source for r in results]
            known = await asyncio.to_thread(self._store.digests, collection, sources=sources)
            await self._take(run, _as_async(results), known=known, container=None, digest=None)
            return self._end(run)

    async def _begin(self, collection: str) -> _Run:
        await asyncio.to_thread(
            self._store.create_collection,
            collection,
            embedder=self._embedding.model,
            dimensions=self._embedding.dimensions,
            exist_ok=True,
        )
        return _Run(collection, self._clock.monotonic())

    def _end(self, run: _Run) -> IngestReport:
        run.report.seconds = self._clock.monotonic() - run.started
        return run.report

    async def _ingest_file(
        self, run: _Run, path: Path, *, source: str | None = None, name: str | None = None
    ) -> None:
        identity = source or str(path)
        try:
            digest = await asyncio.to_thread(_file_digest, path, self._recipe())
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
            results = _iterate(lambda: self._reader.read(path, limits=self._limits))
            if source is not None:
                results = _renamed(results, str(path), source, name or source)
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
        run: _Run,
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
        async for result in results:
            if isinstance(result, ReadFailure):
                self._fail(run, result.source, result.error)
                continue
            if result.source in seen:
                self._fail(run, result.source, _duplicate(result.source))
                continue
            seen.add(result.source)
            own = self._digest_of(result, container, digest)
            if known.get(result.source) == own:
                self._unchanged(run, 1)
                continue
            prepared = await asyncio.to_thread(self._prepare, result, own, container)
            if not prepared.passages:
                self._fail(run, result.source, _empty(result.source))
                continue
            run.report.warnings.extend(f"{result.source}: {w}" for w in result.warnings)
            group.append(prepared)
            if sum(len(p.passages) for p in group) >= GROUP_CHUNKS:
                await self._store_group(run, group)
                group = []
        if group:
            await self._store_group(run, group)
        return seen, len(run.report.failed) == failures

    def _digest_of(self, document: ReadDocument, container: str | None, digest: str | None) -> str:
        """The file's digest stands for its one document; a record has a digest of its own."""
        if digest is not None and document.source == container:
            return digest
        return _document_digest(document, self._recipe())

    def _prepare(self, document: ReadDocument, digest: str, container: str | None) -> _Prepared:
        passages = chunk(
            document,
            target_chars=self._settings.chunk_chars,
            overlap_chars=self._settings.chunk_overlap,
        )
        texts = [indexed_text(document, passage) for passage in passages]
        tokens = self._analyzer.tokens_many(texts)
        return _Prepared(document, digest, container, passages, tokens, texts)

    async def _store_group(self, run: _Run, group: Sequence[_Prepared]) -> None:
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
        self, run: _Run, prepared: _Prepared, rows: Sequence[Any], started: float
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

    def _unchanged(self, run: _Run, count: int) -> None:
        run.report.unchanged += count
        run.tell()

    def _fail(self, run: _Run, source: str, error: OndolError) -> None:
        run.report.failed.append(IngestFailure(source, error.code, error.message, error.hint))
        self._observer.observe(
            DocumentIngested(
                collection=run.collection, source=source, outcome="failed", code=error.code
            )
        )

    def _recipe(self) -> str:
        s = self._settings
        return f"{RECIPE}:{self._embedding.model}:{s.chunk_chars}:{s.chunk_overlap}"


class _Run:
    """One ingest in progress: its report and how far it is."""

    def __init__(self, collection: str, started: float) -> None:
        self.collection = collection
        self.started = started
        self.report = IngestReport()
        self._files: dict[Path, int] = {}
        self._done: set[Path] = set()
        self._progress: Progress | None = None
        self._current = ""

    def plan(self, files: Sequence[Path], progress: Progress | None) -> None:
        self._files = {path: path.stat().st_size if path.exists() else 0 for path in files}
        self._progress = progress

    def advance(self, path: Path) -> None:
        self._done.add(path)
        self._current = path.name
        self.tell()

    def tell(self) -> None:
        if self._progress is None:
            return
        report = self.report
        self._progress(
            IngestProgress(
                done_files=len(self._done),
                total_files=len(self._files),
                bytes_done=sum(self._files.get(path, 0) for path in self._done),
                bytes_total=sum(self._files.values()),
                documents=report.added + report.updated + report.unchanged,
                chunks=report.chunks,
                source=self._current,
            )
        )


def _expand(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        raise InvalidInput("no path was given", hint="name at least one file or folder")
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(
                p
                for p in path.rglob("*")
                if p.is_file()
                and not any(part.startswith(".") for part in p.relative_to(path).parts)
            )
        elif path.exists():
            files.append(path)
        else:
            raise NotFound(f"{path} does not exist", hint="check the path", param=str(path))
    return list(dict.fromkeys(path.resolve() for path in files))


def _file_digest(path: Path, recipe: str) -> str:
    digest = hashlib.sha256(recipe.encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _document_digest(document: ReadDocument, recipe: str) -> str:
    digest = hashlib.sha256(recipe.encode())
    for part in (
        document.title,
        document.text,
        json.dumps(document.metadata, sort_keys=True, default=str),
    ):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _empty(source: str) -> ReadError:
    return ReadError(f"{source} holds no text", hint="check the file's content", code="empty")


def _duplicate(source: str) -> ReadError:
    return ReadError(
        f"{source} occurs twice in its file",
        hint="give every record an id of its own",
        code="bad_record",
    )


async def _as_async(
    results: Sequence[ReadDocument | ReadFailure],
) -> AsyncIterator[ReadDocument | ReadFailure]:
    for result in results:
        yield result


async def _iterate(
    start: Callable[[], Iterator[ReadDocument | ReadFailure]],
) -> AsyncIterator[ReadDocument | ReadFailure]:
    """Walk a blocking iterator in threads, a bounded slice at a time."""
    iterator = await asyncio.to_thread(start)

    def some() -> list[ReadDocument | ReadFailure]:
        taken: list[ReadDocument | ReadFailure] = []
        for result in iterator:
            taken.append(result)
            if len(taken) >= 64:
                break
        return taken

    while results := await asyncio.to_thread(some):
        for result in results:
            yield result


async def _renamed(
    results: AsyncIterator[ReadDocument | ReadFailure], path: str, source: str, name: str
) -> AsyncIterator[ReadDocument | ReadFailure]:
    """Give what was read from a temporary file the identity of the upload."""
    from dataclasses import replace

    async for result in results:
        renamed = source + result.source.removeprefix(path)
        if isinstance(result, ReadFailure):
            yield ReadFailure(
                source=renamed.removeprefix("upload:"),
                error=_rename_error(result.error, path, name),
            )
        else:
            title = name if result.title in ("", Path(path).name, Path(path).stem) else result.title
            yield replace(result, source=renamed, title=title)


def _rename_error(error: ReadError, path: str, name: str) -> ReadError:
    message = error.message.replace(path, name).replace(Path(path).name, name)
    return ReadError(message, hint=error.hint, code=error.code, param=name)

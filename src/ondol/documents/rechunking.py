"""A collection cut anew from the text it holds: no file is read, only changed passages are embedded.

Document by document, each in one transaction: until then it is as it was, from then on it is new,
and its digest says so. Stopped halfway, the next run takes up what is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from ondol.core.chunk_options import ChunkOptions
from ondol.core.clock import Clock
from ondol.core.errors import NotFound, OndolError
from ondol.core.types import OnProgress, ReadDocument
from ondol.documents.chunking.index_words import TextAnalyzer
from ondol.documents.ingest_passages import PreparedDocument, cut_passages, embed_missing, prepare
from ondol.documents.ingest_sources import restamped
from ondol.language.dictionary import Dictionary
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.store.documents import DocumentStore
from ondol.store.passages import KeptChunk
from ondol.store.records import StoredDocument

GROUP_CHUNKS = 128
"""How many passages are embedded together, as in an ingest."""


@dataclass(slots=True)
class Rechunked:
    """What cutting a collection anew did; ``unchanged`` documents are cut as they were.

    ``chunks`` are those stored now, ``embedded`` of them were embedded for it. ``skipped`` documents
    changed or went while this ran: who changed them cut them anew already. Of a ``dry_run`` all this
    is what would be, and nothing is changed.
    """

    collection: str
    chunking: ChunkOptions
    documents: int = 0
    rechunked: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    seconds: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Recut:
    """A document cut anew, and the digest it must still have to be stored so."""

    prepared: PreparedDocument
    was: str


class Rechunking:
    """Cuts the documents of one collection anew; the caller keeps others from ingesting."""

    def __init__(
        self,
        store: DocumentStore,
        embedding: EmbeddingService,
        analyzer: TextAnalyzer,
        *,
        dictionary: Dictionary,
        clock: Clock,
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._analyzer = analyzer
        self._dictionary = dictionary
        self._clock = clock

    async def run(
        self,
        collection: str,
        chunking: ChunkOptions,
        recipe: str,
        *,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> Rechunked:
        """Cut every document anew whose digest does not bear the stamp of ``recipe``."""
        started = self._clock.monotonic()
        report = Rechunked(collection, chunking, dry_run=dry_run)
        pending = await asyncio.to_thread(self._pending, collection, recipe)
        report.documents = len(pending)
        group: list[_Recut] = []
        for number, name in enumerate(pending, start=1):
            recut = await asyncio.to_thread(self._recut, report, name, recipe)
            group += [recut] if recut is not None else []
            if sum(len(one.prepared.passages) for one in group) >= GROUP_CHUNKS:
                await self._store_group(report, group)
                group = []
            if progress is not None:
                progress(number - len(group), len(pending))
        await self._store_group(report, group)
        if progress is not None:
            progress(len(pending), len(pending))
        report.seconds = self._clock.monotonic() - started
        return report

    def _pending(self, collection: str, recipe: str) -> list[str]:
        """Return the names of the documents still to cut, in the order of their sources."""
        names = self._store.names(collection)
        digests = self._store.digests(collection)
        return [
            names[source]
            for source, digest in sorted(digests.items())
            if source in names and digest != restamped(digest, recipe)
        ]

    def _recut(self, report: Rechunked, name: str, recipe: str) -> _Recut | None:
        """Return the document cut anew; ``None`` where nothing is left to do for it."""
        try:
            stored = self._store.document(report.collection, name)
        except NotFound:
            report.skipped += 1
            return None
        digest = restamped(stored.digest, recipe)
        if digest == stored.digest:
            report.skipped += 1
            return None
        kept = self._store.passages.kept(report.collection, stored.source)
        document = as_read(stored)
        prepared = prepare(
            document,
            cut_passages(document, report.chunking),
            digest=digest,
            container=stored.container,
            analyzer=self._analyzer,
            dictionary=self._dictionary,
            held={one.indexed: one.vector for one in kept if one.indexed is not None},
        )
        if not _same(prepared, kept):
            return _Recut(prepared, stored.digest)
        marked = report.dry_run or self._store.passages.mark(
            report.collection, stored.source, was=stored.digest, digest=digest
        )
        report.unchanged += marked
        report.skipped += not marked
        return None

    async def _store_group(self, report: Rechunked, group: Sequence[_Recut]) -> None:
        if report.dry_run:
            for recut in group:
                _count(report, recut.prepared)
            return
        found = await embed_missing([one.prepared for one in group], self._embedding)
        for recut, vectors in zip(group, found, strict=True):
            prepared = recut.prepared
            if isinstance(vectors, OndolError):
                report.failed.append(
                    {
                        "source": prepared.document.source,
                        "code": vectors.code,
                        "error": vectors.message,
                        "hint": vectors.hint,
                    }
                )
                continue
            written = await asyncio.to_thread(
                self._store.recut_document,
                report.collection,
                prepared.document,
                was=recut.was,
                digest=prepared.digest,
                chunks=prepared.chunks,
                vectors=vectors,
            )
            if not written:
                report.skipped += 1
                continue
            _count(report, prepared)


def _count(report: Rechunked, prepared: PreparedDocument) -> None:
    report.rechunked += 1
    report.chunks += len(prepared.passages)
    report.embedded += len(prepared.missing)


def as_read(stored: StoredDocument) -> ReadDocument:
    """Return a stored document as it was when it was read."""
    return ReadDocument(
        source=stored.source,
        title=stored.title,
        text=stored.text,
        pages=stored.pages,
        metadata=stored.metadata,
        media_type=stored.media_type,
    )


def _same(prepared: PreparedDocument, kept: Sequence[KeptChunk]) -> bool:
    cut = zip(prepared.passages, prepared.digests, strict=True)
    new = [(p.start, p.end, p.heading, p.parent, digest) for p, digest in cut]
    return new == [(k.start, k.end, k.heading, k.parent, k.indexed) for k in kept]

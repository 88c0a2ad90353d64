"""Collections, documents and their search: everything kept, behind one thread-safe object.

Owns ``<home>/ondol.db`` (the truth) and ``<home>/vectors/`` (derived from it). A document is
written in one transaction, so it is there whole or not at all; what a method reported as done
survives a crash. Knows no model, no reader and no tokenizer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.core.chunking import Chunking
from ondol.core.clock import Clock
from ondol.core.errors import Conflict, InvalidInput
from ondol.core.observe import DocumentIngested, NullObserver, Observer
from ondol.core.types import FloatMatrix, ReadDocument
from ondol.store import check, collections, document_rows, filters
from ondol.store import chunks as _chunk_rows
from ondol.store.calibration_rows import CalibrationStore
from ondol.store.collections import CollectionRow
from ondol.store.database import Database
from ondol.store.jobs import JobStore
from ondol.store.keyword_rows import KeywordStore
from ondol.store.lexical_index import LexicalIndex, LexicalState
from ondol.store.metric_rows import MetricStore
from ondol.store.names import collection_name
from ondol.store.passages import PassageStore
from ondol.store.records import ChunkRow, Collection, NewChunk, StoredDocument, StoreReport
from ondol.store.vector_mirror import Mirrored, mirror
from ondol.store.vector_search import VectorSearch, VectorState
from ondol.store.vectors import VectorIndex

MAX_DIMENSIONS = 16_384


class DocumentStore:
    """Everything Ondol keeps under ``home``; made where absent.

    All methods may be called from any thread; each is one transaction. Reads never wait for a
    write. An unknown collection or document is ``NotFound`` with near names; a database that
    cannot be used is ``StoreError`` with a remedy. ``resident_bytes`` bounds the vectors held as
    float32. ``vector_search`` makes what finds the nearest vectors; exact unless given. The
    observer hears of deletions only; who ingests reports the rest.
    """

    def __init__(
        self,
        home: Path,
        *,
        clock: Clock,
        observer: Observer | None = None,
        resident_bytes: int = 512 * 2**20,
        busy_seconds: float = 30.0,
        vector_search: Callable[[Database, VectorIndex], VectorSearch] | None = None,
    ) -> None:
        self._clock = clock
        self._observer = observer or NullObserver()
        self._database = Database(home / "ondol.db", clock=clock, busy_seconds=busy_seconds)
        self._vectors = VectorIndex(self._database, home / "vectors", resident_bytes=resident_bytes)
        self._vectors.sweep()
        make = vector_search or (lambda _, exact: exact)
        self._search: VectorSearch = make(self._database, self._vectors)
        self._keywords = LexicalIndex(self._database)
        self.jobs = JobStore(self._database)
        self.metrics = MetricStore(self._database)
        """The rows of finished requests, in the same file."""
        self.passages = PassageStore(self._database)
        self.words = KeywordStore(self._database)
        """What collections know of words: dictionary and synonyms."""
        self.calibrations = CalibrationStore(self._database)
        """What was measured about searching collections."""

    def __enter__(self) -> DocumentStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Save the vector files worth saving and close the database. Later calls do nothing."""
        if not self._database.closed:
            if self._search is not self._vectors:
                self._search.close()
            self._keywords.close()
            self._vectors.close()
            self._database.close()

    # Collections

    def create_collection(
        self,
        name: str,
        *,
        embedder: str,
        dimensions: int,
        metadata: Mapping[str, Any] | None = None,
        chunking: Chunking | None = None,
        exist_ok: bool = False,
    ) -> Collection:
        """Make a collection and return it, or with ``exist_ok`` the one that is there, as it is.

        Raises ``InvalidInput`` for a name that is not allowed, ``Conflict`` where it exists: at
        all, or (``exist_ok``) for another embedder or other dimensions.
        """
        name = collection_name(name)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise InvalidInput(
                f"dimensions is {dimensions}; it must be 1 to {MAX_DIMENSIONS}",
                hint="use the embedder's dimensions",
                param="dimensions",
            )
        kept = document_rows.as_json(metadata or {}, param="metadata")
        if exist_ok:  # the usual case needs no write
            with self._database.read() as connection:
                found = collections.lookup(connection, name)
                if found is not None:
                    _same_shape(found, embedder=embedder, dimensions=dimensions)
                    return collections.describe(connection, name)[0]
        with self._database.write() as connection:
            found = collections.lookup(connection, name)
            if found is None:
                collections.insert(
                    connection,
                    name,
                    embedder=embedder,
                    dimensions=dimensions,
                    created=self._clock.wall(),
                    metadata=kept,
                    chunking=chunking,
                )
            elif exist_ok:
                _same_shape(found, embedder=embedder, dimensions=dimensions)
            else:
                raise Conflict(
                    f"collection {name!r} exists already",
                    hint="choose another name, or delete it first",
                    param="collection",
                )
            return collections.describe(connection, name)[0]

    def collection(self, name: str) -> Collection:
        """Return one collection with its counts."""
        with self._database.read() as connection:
            return collections.describe(connection, collections.find(connection, name).name)[0]

    def collections(self) -> list[Collection]:
        """Return all collections, by name."""
        with self._database.read() as connection:
            return collections.describe(connection)

    def delete_collection(self, name: str) -> None:
        """Remove a collection with everything in it, its vector file included."""
        with self._database.write() as connection:
            found = collections.find(connection, name)
            collections.delete(connection, found.id)
        if self._search is not self._vectors:
            self._search.forget(found.id)
        self._vectors.forget(found.id)
        self._keywords.forget(found.id)

    # Documents

    def put_document(
        self,
        collection: str,
        document: ReadDocument,
        *,
        digest: str,
        chunks: Sequence[NewChunk],
        vectors: FloatMatrix,
        container: str | None = None,
    ) -> Literal["added", "updated"]:
        """Store a document with chunks, tokens and unit vectors (n, d), replacing its source's.

        One transaction: when this returns, all of it is on disk; else nothing of it is. Raises
        ``InvalidInput`` where shapes, offsets or characters do not fit.
        """
        document_rows.validate_text(document)
        metadata = document_rows.as_json(document.metadata, param="metadata")
        if not digest:
            raise InvalidInput("digest is empty", hint="hash the source's bytes", param="digest")
        with self._changing(collection) as (connection, found):
            _chunk_rows.validate(found, document, chunks, vectors)
            identity, existed = document_rows.put(
                connection,
                found,
                document,
                digest=digest,
                container=container,
                metadata=metadata,
                now=self._clock.wall(),
            )
            _chunk_rows.insert(connection, found.id, identity, chunks, vectors)
        self._vectors.wrote(found.id, len(chunks))
        return "updated" if existed else "added"

    def recut_document(
        self,
        collection: str,
        document: ReadDocument,
        *,
        was: str,
        digest: str,
        chunks: Sequence[NewChunk],
        vectors: FloatMatrix,
    ) -> bool:
        """Replace a document's chunks and its digest, in one transaction; its text stays.

        ``False``, and nothing is written, where it is gone or its digest is no longer ``was``:
        ``document`` is then no longer what is stored.
        """
        with self._database.write() as connection:
            found = collections.find(connection, collection)
            _chunk_rows.validate(found, document, chunks, vectors)
            identity = document_rows.recut(
                connection, found, document.source, was=was, digest=digest
            )
            if identity is None:
                return False
            _chunk_rows.insert(connection, found.id, identity, chunks, vectors)
            collections.touch(connection, found.id)
        self._vectors.wrote(found.id, len(chunks))
        return True

    def digests(
        self,
        collection: str,
        *,
        sources: Sequence[str] | None = None,
        container: str | None = None,
    ) -> dict[str, str]:
        """Return source → digest, of all documents, those sources, or those of that container."""
        return {row[1]: row[3] for row in self._by_source(collection, sources, container)}

    def names(
        self,
        collection: str,
        *,
        sources: Sequence[str] | None = None,
        container: str | None = None,
    ) -> dict[str, str]:
        """Return source → public name, of all documents, those sources, or that container."""
        return {row[1]: row[2] for row in self._by_source(collection, sources, container)}

    def document(self, collection: str, document: str) -> StoredDocument:
        """Return a document with its text and pages."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            return document_rows.read(connection, found, document)

    def documents(
        self, collection: str, *, limit: int = 100, after: str | None = None
    ) -> list[StoredDocument]:
        """Return documents by name, without text and pages; ``after`` is the last name seen."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            return document_rows.listing(connection, found, limit=limit, after=after)

    def delete_document(self, collection: str, document: str) -> int:
        """Remove a document with all that hangs on it; return how many chunks went."""
        with self._changing(collection) as (connection, found):
            identity = document_rows.find(connection, found, document)
            source: str = connection.execute(
                "SELECT source FROM documents WHERE id = ?", (identity,)
            ).fetchone()[0]
            removed = document_rows.delete(connection, found, [identity])
        self._deleted(found, [source], removed)
        return removed

    def delete_sources(self, collection: str, sources: Sequence[str]) -> int:
        """Remove the documents of these sources, in one transaction; return how many there were."""
        with self._changing(collection) as (connection, found):
            rows = document_rows.by_source(connection, found, sources=sources, container=None)
            removed = document_rows.delete(connection, found, [row[0] for row in rows])
        self._deleted(found, [row[1] for row in rows], removed)
        return len(rows)

    # Search

    def chunks(self, collection: str, ids: Sequence[int]) -> list[ChunkRow]:
        """Return chunks in the order asked; those deleted since they were found are left out."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            return _chunk_rows.rows(connection, found.id, ids)

    def search_vectors(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        filter: Mapping[str, Any] | None = None,
    ) -> list[tuple[int, float]]:
        """Return up to ``limit`` (chunk, cosine) nearest to ``query`` (d,), ties by id.

        Exact unless the store was opened with another ``vector_search``. ``filter`` is applied before ranking. Raises ``InvalidInput`` for a wrong dimension.
        """
        condition = filters.compile_filter(filter)
        return self._search.nearest(collection, query, limit=limit, condition=condition)

    def search_lexical(
        self,
        collection: str,
        tokens: Sequence[str],
        *,
        limit: int,
        filter: Mapping[str, Any] | None = None,
        expansions: Sequence[str] = (),
    ) -> list[tuple[int, float]]:
        """Return up to ``limit`` (chunk, BM25) that hold any token, best first, ties by id.

        Tokens of ``expansions`` count half. ``filter`` is applied before ranking.
        """
        return self._keywords.search(
            collection,
            tokens,
            limit=limit,
            condition=filters.compile_filter(filter),
            expansions=expansions,
        )

    def lexical_state(self, collection: str) -> LexicalState:
        """Return how the keywords of a collection are searched and what memory that takes."""
        return self._keywords.state(collection)

    def refresh_keywords(self, collection: str) -> LexicalState:
        """Make now what keyword search would else make in the background."""
        self._keywords.refresh(collection)
        return self._keywords.state(collection)

    def vector_state(self, collection: str) -> VectorState:
        """Return how the vectors of a collection are searched and what memory that takes."""
        return self._search.state(collection)

    def refresh_vectors(self, collection: str) -> VectorState:
        """Build now what vector search needs and would else build in the background."""
        self._search.refresh(collection)
        return self._search.state(collection)

    def mirror_vectors(self) -> list[Mirrored]:
        """Bring every collection's index level with the database and prove it, row for row.

        Returns count and checksum by collection. Raises ``StoreError`` where they differ.
        """
        return mirror(self._database, self._search)

    # Care

    def check(self, *, deep: bool = False) -> StoreReport:
        """Prove that nothing is orphaned and all counts agree; ``deep`` reads every page too."""
        return check.inspect(self._database, self._vectors, deep=deep)

    def repair(self) -> StoreReport:
        """Remove orphans, rebuild what is derived, and report what is left.

        A document whose chunks are not whole loses its digest, so that the next ingest of its
        source stores it anew.
        """
        if self._search is not self._vectors:
            with self._database.read() as connection:
                known = collections.rows(connection)
            for row in known:
                self._search.forget(row.id)
        self._keywords.forget_all()
        return check.repair(self._database, self._vectors)

    @contextmanager
    def _changing(self, name: str) -> Iterator[tuple[sqlite3.Connection, CollectionRow]]:
        with self._database.write() as connection:
            found = collections.find(connection, name)
            yield connection, found
            collections.touch(connection, found.id)

    def _by_source(
        self, collection: str, sources: Sequence[str] | None, container: str | None
    ) -> list[tuple[int, str, str, str]]:
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            return document_rows.by_source(connection, found, sources=sources, container=container)

    def _deleted(self, collection: CollectionRow, sources: Sequence[str], removed: int) -> None:
        self._vectors.wrote(collection.id, removed)
        for source in sources:
            self._observer.observe(
                DocumentIngested(collection=collection.name, source=source, outcome="deleted")
            )


def _same_shape(found: CollectionRow, *, embedder: str, dimensions: int) -> None:
    if (found.embedder, found.dimensions) != (embedder, dimensions):
        raise Conflict(
            f"collection {found.name!r} holds vectors of {found.embedder!r} "
            f"({found.dimensions} dimensions), not {embedder!r} ({dimensions})",
            hint="use that embedder, or ingest into a new collection",
            param="embedder",
        )

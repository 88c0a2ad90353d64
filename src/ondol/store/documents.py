"""Collections and documents: everything kept, behind one thread-safe object.

A document is written in one transaction, so it is there whole or not at all; what a method reported
as done survives a crash. How its chunks are found is ``searched``. Knows no model, no reader and no
tokenizer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from ondol.core.chunk_options import ChunkOptions
from ondol.core.errors import Conflict, InvalidInput
from ondol.core.events import DocumentIngested
from ondol.core.types import FloatMatrix, ReadDocument
from ondol.store import chunks as _chunk_rows
from ondol.store import collections, document_rows
from ondol.store.collection_names import collection_name
from ondol.store.collections import CollectionRow
from ondol.store.records import Collection, NewChunk, StoredDocument
from ondol.store.search_store import SearchedStore

MAX_DIMENSIONS = 16_384


class DocumentStore(SearchedStore):
    """Everything Ondol keeps under ``home``; made where absent.

    All methods may be called from any thread; each is one transaction. Reads never wait for a
    write. An unknown collection or document is ``NotFound`` with near names; a database that
    cannot be used is ``StoreError`` with a remedy. The observer hears of deletions only; who
    ingests reports the rest.
    """

    # Collections

    def create_collection(
        self,
        name: str,
        *,
        embedder: str,
        dimensions: int,
        metadata: Mapping[str, Any] | None = None,
        chunking: ChunkOptions | None = None,
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
        self._forget(found.id)

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

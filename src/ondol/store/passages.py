"""How the documents of a collection are cut: the record of it, the chunks of one, what is around them.

Chunks of one document that were stored together have neighbouring ids in the order of their text,
so what stands near a chunk is found by its id, whatever the document's length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.chunk_options import ChunkOptions
from ondol.store import collections, document_rows, filters, texts
from ondol.store.database import Database

REACH = 64
"""How many chunks before and after one are looked at."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A chunk's place in its document: characters ``[start, end)``, and the page it starts on."""

    start: int
    end: int
    page: int | None


@dataclass(frozen=True, slots=True)
class KeptChunk:
    """A chunk as it was cut, the digest of what was embedded for it (if known), its vector (d,)."""

    start: int
    end: int
    heading: str
    parent: tuple[int, int] | None
    indexed: bytes | None
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A chunk as one of many texts: its document's name, its text and its vector (d,)."""

    document: str
    text: str
    vector: NDArray[np.float32]


class PassageStore:
    """Reads and notes of ``database`` that concern the cut of documents; changes no chunk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def siblings(self, collection: str, ids: Sequence[int]) -> dict[int, list[Neighbour]]:
        """Return chunk → the chunks near it that have its parent, itself included, in text order.

        A chunk without a parent, or that is gone, is left out.
        """
        found: dict[int, list[Neighbour]] = {}
        with self._database.read() as connection:
            kept = collections.find(connection, collection)
            rows = connection.execute(
                "SELECT c.id, s.start, s.stop, s.page FROM chunks c JOIN chunks s "
                "ON s.id BETWEEN c.id - ? AND c.id + ? AND s.document_id = c.document_id "
                "AND s.parent_start = c.parent_start AND s.parent_stop = c.parent_stop "
                "WHERE c.id IN (SELECT value FROM json_each(?)) AND c.collection_id = ? "
                "ORDER BY c.id, s.start, s.stop",
                (REACH, REACH, json.dumps([int(one) for one in ids]), kept.id),
            )
            for chunk, start, end, page in rows:
                found.setdefault(chunk, []).append(Neighbour(start, end, page))
        return found

    def texts(self, collection: str, spans: Sequence[tuple[str, int, int]]) -> list[str]:
        """Return the text of each (document, start, end); empty where the document is gone."""
        with self._database.read() as connection:
            kept = collections.find(connection, collection)
            read = []
            for document, start, end in spans:
                row = connection.execute(
                    "SELECT id FROM documents WHERE collection_id = ? AND name = ?",
                    (kept.id, document),
                ).fetchone()
                read.append(texts.passage(connection, row[0], start, end) if row else "")
        return read

    def kept(self, collection: str, source: str) -> list[KeptChunk]:
        """Return the chunks of a source in the order of their text; none where it is not there."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            rows = connection.execute(
                "SELECT c.start, c.stop, c.heading, c.parent_start, c.parent_stop, c.indexed, "
                "c.vector FROM chunks c JOIN documents d ON d.id = c.document_id "
                "WHERE d.collection_id = ? AND d.source = ? ORDER BY c.id",
                (found.id, source),
            ).fetchall()
        return [
            KeptChunk(
                start=row[0],
                end=row[1],
                heading=row[2],
                parent=None if row[3] is None else (row[3], row[4]),
                indexed=row[5],
                vector=np.frombuffer(row[6], "<f2").astype(np.float32),
            )
            for row in rows
        ]

    def entries(
        self, collection: str, *, filter: Mapping[str, Any] | None, limit: int
    ) -> list[StoredEntry]:
        """Return up to ``limit`` chunks of the documents that meet ``filter``, in order of ids."""
        condition = filters.compile_filter(filter)
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            wanted = "" if condition is None else f" AND {condition.sql}"
            rows = connection.execute(
                "SELECT c.id, d.id, d.name, c.start, c.stop, c.vector FROM documents d "
                f"JOIN chunks c ON c.document_id = d.id WHERE d.collection_id = ?{wanted} "
                "ORDER BY c.id LIMIT ?",
                (found.id, *(() if condition is None else condition.parameters), limit),
            ).fetchall()
            return [
                StoredEntry(
                    document=name,
                    text=texts.passage(connection, document, start, stop),
                    vector=np.frombuffer(vector, "<f2").astype(np.float32),
                )
                for _, document, name, start, stop, vector in rows
            ]

    def record(self, name: str, chunking: ChunkOptions) -> None:
        """Note how documents are cut from now on; those that are there stay as they are."""
        with self._database.write() as connection:
            collections.set_chunking(connection, collections.find(connection, name).id, chunking)

    def mark(self, collection: str, source: str, *, was: str, digest: str) -> bool:
        """Give a document ``digest`` where it still has ``was``; tell whether it had."""
        with self._database.write() as connection:
            found = collections.find(connection, collection)
            return document_rows.set_digest(connection, found, source, was=was, digest=digest)

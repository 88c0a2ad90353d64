"""The rows of collections: made, found, listed, stamped, deleted, inside a caller's transaction.

A collection's ``stamp`` is a random word that every write to it replaces: equal stamps mean equal
contents. ``snapshot`` is the stamp under which its vector file was written; ``lexicon`` is a random
word that changes when the keywords of chunks change that were there before.
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from dataclasses import asdict, dataclass

from ondol.core.chunk_options import ChunkOptions
from ondol.core.errors import NotFound
from ondol.store import lexical
from ondol.store.collection_names import near
from ondol.store.records import Collection

_NEW_STAMP = "lower(hex(randomblob(16)))"


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """What the store itself needs of a collection."""

    id: int
    name: str
    embedder: str
    dimensions: int
    stamp: str
    snapshot: str | None
    lexicon: str


def insert(
    connection: sqlite3.Connection,
    name: str,
    *,
    embedder: str,
    dimensions: int,
    created: float,
    metadata: str,
    chunking: ChunkOptions | None = None,
) -> None:
    """Make a collection with its lexical index; ``metadata`` is JSON."""
    cursor = connection.execute(
        "INSERT INTO collections(name, embedder, dimensions, created, metadata, chunking, stamp) "
        f"VALUES (?, ?, ?, ?, ?, ?, {_NEW_STAMP})",
        (name, embedder, dimensions, created, metadata, _written(chunking)),
    )
    lexical.create(connection, int(cursor.lastrowid or 0))


def find(connection: sqlite3.Connection, name: str) -> CollectionRow:
    """Return the collection, or raise ``NotFound`` with names that are near."""
    found = lookup(connection, name)
    if found is None:
        names = [row[0] for row in connection.execute("SELECT name FROM collections")]
        raise NotFound(
            f"collection {name!r} does not exist", hint=near(name, names), param="collection"
        )
    return found


def lookup(connection: sqlite3.Connection, name: str) -> CollectionRow | None:
    """Return the collection if there is one; ``name`` may be in any normal form."""
    rows = _rows(connection, "WHERE name = ?", (unicodedata.normalize("NFC", name),))
    return rows[0] if rows else None


def rows(connection: sqlite3.Connection) -> list[CollectionRow]:
    """Return all collections in order of creation."""
    return _rows(connection, "ORDER BY id", ())


def describe(connection: sqlite3.Connection, name: str | None = None) -> list[Collection]:
    """Return one collection, or all by name, with counts."""
    where, parameters = ("WHERE name = ?", (name,)) if name is not None else ("", ())
    return [
        Collection(
            name=row[0],
            embedder=row[1],
            dimensions=row[2],
            created=row[3],
            documents=row[5],
            chunks=row[6],
            metadata=json.loads(row[4]),
            keywords=json.loads(row[7]),
            calibration=json.loads(row[8]),
            chunking=ChunkOptions(**json.loads(row[9])) if row[9] else None,
        )
        for row in connection.execute(
            "SELECT name, embedder, dimensions, created, metadata, "
            "(SELECT count(*) FROM documents d WHERE d.collection_id = k.id), "
            "(SELECT count(*) FROM chunks c WHERE c.collection_id = k.id), keywords, calibration, "
            "chunking "
            f"FROM collections k {where} ORDER BY name",
            parameters,
        )
    ]


def touch(connection: sqlite3.Connection, collection: int) -> None:
    """Give the collection a new stamp: its contents have changed."""
    connection.execute(f"UPDATE collections SET stamp = {_NEW_STAMP} WHERE id = ?", (collection,))


def keywords(connection: sqlite3.Connection, collection: int) -> str:
    """Return what the collection knows of words, as JSON."""
    found: str = connection.execute(
        "SELECT keywords FROM collections WHERE id = ?", (collection,)
    ).fetchone()[0]
    return found


def set_keywords(connection: sqlite3.Connection, collection: int, keywords: str) -> None:
    """Keep what the collection knows of words; ``keywords`` is JSON."""
    connection.execute("UPDATE collections SET keywords = ? WHERE id = ?", (keywords, collection))


def set_calibration(connection: sqlite3.Connection, collection: int, calibration: str) -> None:
    """Keep what was measured about searching the collection; ``calibration`` is JSON."""
    connection.execute(
        "UPDATE collections SET calibration = ? WHERE id = ?", (calibration, collection)
    )


def set_chunking(connection: sqlite3.Connection, collection: int, chunking: ChunkOptions) -> None:
    """Record how the documents of the collection are cut from now on."""
    connection.execute(
        "UPDATE collections SET chunking = ? WHERE id = ?", (_written(chunking), collection)
    )


def new_lexicon(connection: sqlite3.Connection, collection: int) -> None:
    """Say that keywords of chunks have changed that were there before."""
    connection.execute(f"UPDATE collections SET lexicon = {_NEW_STAMP} WHERE id = ?", (collection,))


def mark_snapshot(connection: sqlite3.Connection, collection: int, stamp: str | None) -> None:
    """Record that the vector file on disk holds the contents under ``stamp``, or none does."""
    connection.execute("UPDATE collections SET snapshot = ? WHERE id = ?", (stamp, collection))


def delete(connection: sqlite3.Connection, collection: int) -> None:
    """Remove the collection with all its documents, texts, chunks and its lexical index."""
    lexical.drop(connection, collection)
    connection.execute("DELETE FROM collections WHERE id = ?", (collection,))


def _written(chunking: ChunkOptions | None) -> str:
    return "" if chunking is None else json.dumps(asdict(chunking))


def _rows(
    connection: sqlite3.Connection, clause: str, parameters: tuple[object, ...]
) -> list[CollectionRow]:
    return [
        CollectionRow(*row)
        for row in connection.execute(
            f"SELECT id, name, embedder, dimensions, stamp, snapshot, lexicon "
            f"FROM collections {clause}",
            parameters,
        )
    ]

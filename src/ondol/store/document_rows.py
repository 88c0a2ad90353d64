"""The rows of documents: written, found, listed, deleted, inside a caller's transaction.

A document is identified by its source within a collection, and known to the outside by a name
unique there. Turns Python values into what SQLite keeps, and back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ondol.core.errors import InvalidInput, NotFound
from ondol.core.types import Page, ReadDocument
from ondol.store import chunks, texts
from ondol.store.collection_names import free_name, near
from ondol.store.collections import CollectionRow
from ondol.store.records import StoredDocument

_COLUMNS = (
    "d.id, d.name, d.source, d.title, d.media_type, d.metadata, d.digest, d.ingested, "
    "d.characters, d.container, (SELECT count(*) FROM chunks c WHERE c.document_id = d.id)"
)


def as_json(value: Mapping[str, Any], *, param: str) -> str:
    """Return ``value`` as JSON text, or raise ``InvalidInput`` naming ``param``."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        written.encode()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidInput(
            f"{param} cannot be kept as JSON: {error}",
            hint="use strings, finite numbers, booleans, null, lists and objects only",
            param=param,
        ) from None
    return written


def validate_text(document: ReadDocument) -> None:
    """Raise ``InvalidInput`` where source, title or text hold what SQLite text cannot."""
    for what, value in (
        ("source", document.source),
        ("title", document.title),
        ("text", document.text),
    ):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{what} of {document.source!r} holds a lone surrogate at {error.start}",
                hint="replace lone surrogates when reading",
                param=what,
            ) from None
        if "\x00" in value:
            raise InvalidInput(
                f"{what} of {document.source!r} holds a NUL character",
                hint="strip NUL characters when reading",
                param=what,
            )
    if not document.source:
        raise InvalidInput("source is empty", hint="name the document's source", param="source")


def put(
    connection: sqlite3.Connection,
    collection: CollectionRow,
    document: ReadDocument,
    *,
    digest: str,
    container: str | None,
    metadata: str,
    now: float,
) -> tuple[int, bool]:
    """Write the document without chunks; return its id and whether it stood there before.

    What stood there before keeps its name and loses its text and chunks.
    """
    pages = json.dumps([[page.number, page.start, page.end] for page in document.pages])
    values = (
        container,
        document.title,
        document.media_type,
        digest,
        now,
        len(document.text),
        metadata,
        pages,
    )
    row = connection.execute(
        "SELECT id FROM documents WHERE collection_id = ? AND source = ?",
        (collection.id, document.source),
    ).fetchone()
    if row is not None:
        found: int = row[0]
        chunks.delete(connection, collection.id, found)
        texts.delete(connection, found)
        connection.execute(
            "UPDATE documents SET container = ?, title = ?, media_type = ?, digest = ?, "
            "ingested = ?, characters = ?, metadata = ?, pages = ? WHERE id = ?",
            (*values, found),
        )
    else:
        name = free_name(
            document.source, taken=lambda n: _id(connection, collection, n) is not None
        )
        cursor = connection.execute(
            "INSERT INTO documents(collection_id, name, source, container, title, media_type, "
            "digest, ingested, characters, metadata, pages) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (collection.id, name, document.source, *values),
        )
        found = int(cursor.lastrowid or 0)
    texts.insert(connection, found, document.text)
    return found, row is not None


def recut(
    connection: sqlite3.Connection, collection: CollectionRow, source: str, *, was: str, digest: str
) -> int | None:
    """Remove a document's chunks and give it ``digest``; return its id.

    ``None``, and nothing is done, where it is gone or its digest is no longer ``was``.
    """
    row = connection.execute(
        "SELECT id FROM documents WHERE collection_id = ? AND source = ? AND digest = ?",
        (collection.id, source, was),
    ).fetchone()
    if row is None:
        return None
    found: int = row[0]
    chunks.delete(connection, collection.id, found)
    connection.execute("UPDATE documents SET digest = ? WHERE id = ?", (digest, found))
    return found


def set_digest(
    connection: sqlite3.Connection, collection: CollectionRow, source: str, *, was: str, digest: str
) -> bool:
    """Give the document ``digest`` and return ``True`` if its digest is ``was``."""
    cursor = connection.execute(
        "UPDATE documents SET digest = ? WHERE collection_id = ? AND source = ? AND digest = ?",
        (digest, collection.id, source, was),
    )
    return cursor.rowcount == 1


def find(connection: sqlite3.Connection, collection: CollectionRow, name: str) -> int:
    """Return the id of the document called ``name``, or raise ``NotFound`` with near names."""
    found = _id(connection, collection, name)
    if found is None:
        # Names that share a beginning come first; a large collection is not read whole.
        rows = connection.execute(
            "SELECT name FROM documents WHERE collection_id = ? "
            "ORDER BY substr(name, 1, 2) = substr(?, 1, 2) DESC LIMIT 2000",
            (collection.id, name),
        )
        raise NotFound(
            f"document {name!r} is not in collection {collection.name!r}",
            hint=near(name, [row[0] for row in rows]),
            param="document",
        )
    return found


def read(connection: sqlite3.Connection, collection: CollectionRow, name: str) -> StoredDocument:
    """Return the document with text and pages."""
    found = find(connection, collection, name)
    row = connection.execute(
        f"SELECT {_COLUMNS}, d.pages FROM documents d WHERE d.id = ?", (found,)
    ).fetchone()
    pages = tuple(Page(*page) for page in json.loads(row[-1]))
    return _stored(collection, row, text=texts.read(connection, found), pages=pages)


def listing(
    connection: sqlite3.Connection, collection: CollectionRow, *, limit: int, after: str | None
) -> list[StoredDocument]:
    """Return up to ``limit`` documents by name, those after ``after``, without text and pages."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM documents d WHERE d.collection_id = ? AND d.name > ? "
        "ORDER BY d.name LIMIT ?",
        (collection.id, after or "", limit),
    )
    return [_stored(collection, row, text="", pages=()) for row in rows]


def by_source(
    connection: sqlite3.Connection,
    collection: CollectionRow,
    *,
    sources: Sequence[str] | None,
    container: str | None,
) -> list[tuple[int, str, str, str]]:
    """Return (id, source, name, digest) of documents, of those sources or that container only."""
    sql = "SELECT id, source, name, digest FROM documents WHERE collection_id = ?"
    parameters: list[Any] = [collection.id]
    if sources is not None:
        sql += " AND source IN (SELECT value FROM json_each(?))"
        parameters.append(json.dumps(list(sources)))
    if container is not None:
        sql += " AND container = ?"
        parameters.append(container)
    return connection.execute(sql, parameters).fetchall()


def delete(connection: sqlite3.Connection, collection: CollectionRow, ids: Iterable[int]) -> int:
    """Remove documents with texts, chunks, vectors and tokens; return how many chunks went."""
    removed = 0
    for document in ids:
        removed += chunks.delete(connection, collection.id, document)
        connection.execute("DELETE FROM documents WHERE id = ?", (document,))
    return removed


def _id(connection: sqlite3.Connection, collection: CollectionRow, name: str) -> int | None:
    row = connection.execute(
        "SELECT id FROM documents WHERE collection_id = ? AND name = ?", (collection.id, name)
    ).fetchone()
    return None if row is None else int(row[0])


def _stored(
    collection: CollectionRow, row: Sequence[Any], *, text: str, pages: Sequence[Page]
) -> StoredDocument:
    return StoredDocument(
        document=row[1],
        collection=collection.name,
        source=row[2],
        title=row[3],
        text=text,
        pages=pages,
        media_type=row[4],
        metadata=json.loads(row[5]),
        digest=row[6],
        chunks=row[10],
        ingested=row[7],
        characters=row[8],
        container=row[9],
    )

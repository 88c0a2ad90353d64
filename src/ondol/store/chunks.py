"""The rows of chunks with their vectors and tokens, inside a caller's transaction.

A chunk and its vector are one row; its tokens are a row of the collection's lexical index under
the same id. Ids only grow and are never reused, which the vector index relies on.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import numpy as np

from ondol.core.errors import InvalidInput
from ondol.core.types import FloatMatrix, ReadDocument
from ondol.store import lexical, texts
from ondol.store.collections import CollectionRow
from ondol.store.records import ChunkRow, NewChunk

_UNIT_TOLERANCE = 0.01  # how far from 1 the length of a vector may be


def validate(
    collection: CollectionRow,
    document: ReadDocument,
    chunks: Sequence[NewChunk],
    vectors: FloatMatrix,
) -> None:
    """Raise ``InvalidInput`` unless every chunk is a passage of the document with a unit vector."""
    shape = (len(chunks), collection.dimensions)
    if vectors.shape != shape:
        raise InvalidInput(
            f"vectors for {document.source!r} have shape {vectors.shape}; "
            f"{len(chunks)} chunks in {collection.name!r} need {shape}",
            hint=f"embed with {collection.embedder!r}, one vector for each chunk",
            param="vectors",
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(lengths - 1.0) <= _UNIT_TOLERANCE):  # NaN fails this too
        worst = int(np.argmax(~(np.abs(lengths - 1.0) <= _UNIT_TOLERANCE)))
        raise InvalidInput(
            f"vector {worst} for {document.source!r} has length {lengths[worst]:.4g}; "
            "vectors must be finite and of length 1",
            hint="normalise vectors before storing them",
            param="vectors",
        )
    for number, chunk in enumerate(chunks):
        passage = chunk.passage
        if (
            not 0 <= passage.start < passage.end <= len(document.text)
            or document.text[passage.start : passage.end] != passage.text
        ):
            raise InvalidInput(
                f"chunk {number} of {document.source!r} is not the text at "
                f"[{passage.start}, {passage.end})",
                hint="chunk the same text that is stored",
                param="chunks",
            )
        start, end = passage.parent or (passage.start, passage.end)
        if not 0 <= start <= passage.start < passage.end <= end <= len(document.text):
            raise InvalidInput(
                f"chunk {number} of {document.source!r} at [{passage.start}, {passage.end}) is not "
                f"within its parent [{start}, {end})",
                hint="a parent is a range of the same text that holds the chunk",
                param="chunks",
            )


def insert(
    connection: sqlite3.Connection,
    collection: int,
    document: int,
    chunks: Sequence[NewChunk],
    vectors: FloatMatrix,
) -> None:
    """Store chunks, vectors (as float16) and tokens of a document that has none."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
    first = (row[0] if row else 0) + 1
    halves = vectors.astype("<f2")
    connection.executemany(
        "INSERT INTO chunks(id, document_id, collection_id, start, stop, page, heading, vector, "
        "parent_start, parent_stop, indexed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                first + number,
                document,
                collection,
                chunk.passage.start,
                chunk.passage.end,
                chunk.passage.page,
                chunk.passage.heading,
                halves[number].tobytes(),
                *(chunk.passage.parent or (None, None)),
                chunk.indexed,
            )
            for number, chunk in enumerate(chunks)
        ),
    )
    lexical.add(
        connection,
        collection,
        ((first + number, chunk.tokens) for number, chunk in enumerate(chunks)),
    )


def delete(connection: sqlite3.Connection, collection: int, document: int) -> int:
    """Remove all chunks of a document with vectors and tokens; return how many there were."""
    ids = [
        row[0]
        for row in connection.execute("SELECT id FROM chunks WHERE document_id = ?", (document,))
    ]
    lexical.remove(connection, collection, ids)
    connection.execute("DELETE FROM chunks WHERE document_id = ?", (document,))
    return len(ids)


def of_document(connection: sqlite3.Connection, collection: int, document: int) -> list[ChunkRow]:
    """Return all chunks of a document in the order of their ids."""
    ids = connection.execute("SELECT id FROM chunks WHERE document_id = ? ORDER BY id", (document,))
    return rows(connection, collection, [row[0] for row in ids])


def rewrite_keywords(
    connection: sqlite3.Connection, collection: int, rows: Sequence[tuple[int, Sequence[str]]]
) -> int:
    """Index chunks anew under other tokens; return how many there were still to index."""
    wanted = json.dumps([chunk for chunk, _ in rows])
    held = {
        row[0]
        for row in connection.execute(
            "SELECT id FROM chunks "
            "WHERE id IN (SELECT value FROM json_each(?)) AND collection_id = ?",
            (wanted, collection),
        )
    }
    lexical.remove(connection, collection, held)
    lexical.add(connection, collection, (row for row in rows if row[0] in held))
    return len(held)


def rows(connection: sqlite3.Connection, collection: int, ids: Sequence[int]) -> list[ChunkRow]:
    """Return the chunks in the order asked; those that are gone are left out."""
    found = {
        row[0]: row
        for row in connection.execute(
            "SELECT c.id, c.document_id, c.start, c.stop, c.page, c.heading, "
            "d.name, d.title, d.metadata "
            "FROM chunks c JOIN documents d ON d.id = c.document_id "
            "WHERE c.id IN (SELECT value FROM json_each(?)) AND c.collection_id = ?",
            (json.dumps([int(chunk) for chunk in ids]), collection),
        )
    }
    return [
        ChunkRow(
            chunk=row[0],
            document=row[6],
            page=row[4],
            start=row[2],
            end=row[3],
            text=texts.passage(connection, row[1], row[2], row[3]),
            heading=row[5],
            title=row[7],
            metadata=json.loads(row[8]),
        )
        for row in (found[chunk] for chunk in ids if chunk in found)
    ]

"""Documents' texts, kept in blocks so that a passage of a huge text is read without the rest.

Offsets are characters (code points, as Python and SQLite's ``substr`` both count them); astral
characters count one.
"""

from __future__ import annotations

import sqlite3

BLOCK = 32_768  # characters; measured: a passage costs < 0.1 ms whatever the document's length


def insert(connection: sqlite3.Connection, document: int, text: str) -> None:
    """Store the text of a document that has none."""
    connection.executemany(
        "INSERT INTO texts(document_id, start, text) VALUES (?, ?, ?)",
        (
            (document, start, text[start : start + BLOCK])
            for start in range(0, max(1, len(text)), BLOCK)
        ),
    )


def delete(connection: sqlite3.Connection, document: int) -> None:
    """Remove the text of a document."""
    connection.execute("DELETE FROM texts WHERE document_id = ?", (document,))


def read(connection: sqlite3.Connection, document: int) -> str:
    """Return the whole text."""
    rows = connection.execute(
        "SELECT text FROM texts WHERE document_id = ? ORDER BY start", (document,)
    )
    return "".join(row[0] for row in rows)


def passage(connection: sqlite3.Connection, document: int, start: int, end: int) -> str:
    """Return characters ``[start, end)`` of the text."""
    first = start - start % BLOCK
    rows = connection.execute(
        "SELECT substr(text, max(?, start) - start + 1, ? - max(?, start)) FROM texts "
        "WHERE document_id = ? AND start >= ? AND start < ? ORDER BY start",
        (start, end, start, document, first, max(end, start + 1)),
    )
    return "".join(row[0] for row in rows)

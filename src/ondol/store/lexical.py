"""BM25 over FTS5: one index per collection, so that document frequencies are its own.

Tokens come from the caller and stay whole: each becomes exactly one FTS5 token (the ``ascii``
tokenizer splits at ASCII punctuation only, which ``_term`` replaces), folded in ASCII case only.
Knows no language and no text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from ondol.store.filters import Condition, candidate_sql

MAX_TERMS = 64  # a longer query keeps its rarest terms; see docs/concepts/storage.md

# What the tokenizer would split at, moved to its full-width twin or, for control characters and
# the space, to a private-use character; capitals folded as the tokenizer folds them.
_WHOLE = {
    code: chr(code + 0xFEE0) if code > 0x20 else chr(0xE000 + code)
    for code in range(0x80)
    if not chr(code).isalnum()
} | {code: chr(code + 0x20) for code in range(ord("A"), ord("Z") + 1)}


def create(connection: sqlite3.Connection, collection: int) -> None:
    """Make the index of a new collection."""
    connection.execute(
        f"CREATE VIRTUAL TABLE lexical_{collection} USING fts5(body, tokenize = 'ascii')"
    )
    connection.execute(
        f"CREATE VIRTUAL TABLE vocabulary_{collection} "
        f"USING fts5vocab('lexical_{collection}', 'row')"
    )


def drop(connection: sqlite3.Connection, collection: int) -> None:
    """Remove the index of a collection, if it is there."""
    connection.execute(f"DROP TABLE IF EXISTS vocabulary_{collection}")
    connection.execute(f"DROP TABLE IF EXISTS lexical_{collection}")


def add(
    connection: sqlite3.Connection,
    collection: int,
    rows: Iterable[tuple[int, Sequence[str]]],
) -> None:
    """Index chunks: (chunk id, tokens)."""
    connection.executemany(
        f"INSERT INTO lexical_{collection}(rowid, body) VALUES (?, ?)",
        ((chunk, " ".join(_term(token) for token in tokens if token)) for chunk, tokens in rows),
    )


def remove(connection: sqlite3.Connection, collection: int, chunks: Iterable[int]) -> None:
    """Take chunks out of the index."""
    connection.executemany(
        f"DELETE FROM lexical_{collection} WHERE rowid = ?", ((chunk,) for chunk in chunks)
    )


def search(
    connection: sqlite3.Connection,
    collection: int,
    tokens: Sequence[str],
    *,
    limit: int,
    condition: Condition | None,
) -> list[tuple[int, float]]:
    """Return up to ``limit`` (chunk id, BM25 score) that hold any token, best first, ties by id.

    Scores are positive, higher is better (FTS5 ``bm25()``, k1 = 1.2, b = 0.75, negated). Terms in
    more than half of the chunks weigh next to nothing there (their IDF is clamped to 1e-6) and
    cost the most, so they are asked for only when the others do not fill ``limit``.
    """
    terms = _present(connection, collection, tokens)
    if not terms or limit < 1:
        return []
    total = connection.execute(
        "SELECT count(*) FROM chunks WHERE collection_id = ?", (collection,)
    ).fetchone()[0]
    telling = [term for term, count in terms if 2 * count <= total]
    if telling:
        found = _match(connection, collection, telling, limit=limit, condition=condition)
        if len(found) >= limit or len(telling) == len(terms):
            return found
    every = [term for term, _ in terms]
    return _match(connection, collection, every, limit=limit, condition=condition)


def _present(
    connection: sqlite3.Connection, collection: int, tokens: Sequence[str]
) -> list[tuple[str, int]]:
    """Return the distinct terms the index holds with their document counts, rarest first."""
    sql = f"SELECT doc FROM vocabulary_{collection} WHERE term = ?"
    counted: list[tuple[str, int]] = []
    for term in dict.fromkeys(_term(token) for token in tokens if token):
        row = connection.execute(sql, (term,)).fetchone()
        if row is not None:
            counted.append((term, row[0]))
    counted.sort(key=lambda pair: pair[1])
    return counted[:MAX_TERMS]


def _match(
    connection: sqlite3.Connection,
    collection: int,
    terms: Sequence[str],
    *,
    limit: int,
    condition: Condition | None,
) -> list[tuple[int, float]]:
    query = " OR ".join(f'"{term}"' for term in terms)
    table = f"lexical_{collection}"
    sql = f"SELECT rowid, bm25({table}) AS score FROM {table} WHERE {table} MATCH ?"
    parameters: tuple[object, ...] = (query,)
    if condition is not None:
        # The plus sign keeps SQLite from running the query once for each candidate.
        sql += f" AND +rowid IN ({candidate_sql(condition)})"
        parameters += (collection, *condition.parameters)
    rows = connection.execute(f"{sql} ORDER BY score, rowid LIMIT ?", (*parameters, limit))
    return [(chunk, -score) for chunk, score in rows]


def _term(token: str) -> str:
    return token.translate(_WHOLE)

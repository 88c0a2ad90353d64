"""BM25 over FTS5: one index per collection, so that document frequencies are its own.

Tokens come from the caller and stay whole: each becomes exactly one FTS5 token (the ``ascii``
tokenizer splits at ASCII punctuation only, which ``_term`` replaces), folded in ASCII case only.
Knows no language and no text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ondol.store.filters import FilterCondition, candidate_sql

MAX_TERMS = 64  # a longer query keeps its rarest terms; see docs/concepts/storage.md

EXPANSION = 0.5
"""What a term counts that the query does not hold itself; 1 divided by it is a whole number."""

Asked = Mapping[str, float]
"""The terms of a query, as indexed, with their weights."""

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


def count(connection: sqlite3.Connection, collection: int) -> int:
    """Return how many chunks a collection has."""
    found: int = connection.execute(
        "SELECT count(*) FROM chunks WHERE collection_id = ?", (collection,)
    ).fetchone()[0]
    return found


def rows(
    connection: sqlite3.Connection, collection: int, *, after: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yield (chunk id, terms as indexed) of the chunks above ``after``, ascending."""
    for chunk, body in connection.execute(
        f"SELECT rowid, body FROM lexical_{collection} WHERE rowid > ? ORDER BY rowid", (after,)
    ):
        yield chunk, body.split(" ") if body else []


def holds_between(
    connection: sqlite3.Connection, collection: int, *, first: str, last: str
) -> bool:
    """Return whether the index holds a term that sorts from ``first`` to ``last``."""
    sql = f"SELECT 1 FROM vocabulary_{collection} WHERE term >= ? AND term <= ? LIMIT 1"
    return connection.execute(sql, (first, last)).fetchone() is not None


def asked(tokens: Sequence[str], expansions: Sequence[str] = ()) -> Asked:
    """Return the distinct terms of a query with their weights: 1, of expansions ``EXPANSION``."""
    found = {_term(token): 1.0 for token in tokens if token}
    for token in expansions:
        if token:
            found.setdefault(_term(token), EXPANSION)
    return found


def rounds(counts: Mapping[str, int], *, total: int) -> Iterator[list[str]]:
    """Yield the terms to look for: first those that tell, then all where that finds too little.

    ``counts`` says in how many of ``total`` chunks each term stands. Terms in more than half of
    them weigh next to nothing there (their IDF is clamped to 1e-6) and cost the most.
    """
    held = [pair for pair in counts.items() if pair[1]]
    held = sorted(held, key=lambda pair: pair[1])[:MAX_TERMS]
    telling = [term for term, chunks in held if 2 * chunks <= total]
    if telling:
        yield telling
    if len(telling) < len(held):
        yield [term for term, _ in held]


def search(
    connection: sqlite3.Connection,
    collection: int,
    asked: Asked,
    *,
    limit: int,
    condition: FilterCondition | None,
) -> list[tuple[int, float]]:
    """Return up to ``limit`` (chunk id, BM25 score) that hold any term, best first, ties by id.

    Scores are positive, higher is better: FTS5's ``bm25()`` (k1 = 1.2, b = 0.75) negated, each
    term times its weight.
    """
    found: list[tuple[int, float]] = []
    if not asked or limit < 1:
        return found
    counts = _counts(connection, collection, asked)
    for terms in rounds(counts, total=count(connection, collection)):
        weighed = {term: asked[term] for term in terms}
        found = _match(connection, collection, weighed, limit=limit, condition=condition)
        if len(found) >= limit:
            break
    return found


def _counts(connection: sqlite3.Connection, collection: int, terms: Asked) -> dict[str, int]:
    """Return in how many chunks each term stands that the index holds."""
    sql = f"SELECT doc FROM vocabulary_{collection} WHERE term = ?"
    counted: dict[str, int] = {}
    for term in terms:
        row = connection.execute(sql, (term,)).fetchone()
        if row is not None:
            counted[term] = row[0]
    return counted


def _match(
    connection: sqlite3.Connection,
    collection: int,
    terms: Asked,
    *,
    limit: int,
    condition: FilterCondition | None,
) -> list[tuple[int, float]]:
    # bm25() knows no weight of a phrase, but counts one that is asked for twice twice.
    unit = min(terms.values())
    query = " OR ".join(
        f'"{term}"' for term, weight in terms.items() for _ in range(round(weight / unit))
    )
    table = f"lexical_{collection}"
    sql = f"SELECT rowid, bm25({table}) AS score FROM {table} WHERE {table} MATCH ?"
    parameters: tuple[object, ...] = (query,)
    if condition is not None:
        # The plus sign keeps SQLite from running the query once for each candidate.
        sql += f" AND +rowid IN ({candidate_sql(condition)})"
        parameters += (collection, *condition.parameters)
    rows = connection.execute(f"{sql} ORDER BY score, rowid LIMIT ?", (*parameters, limit))
    return [(chunk, -score * unit) for chunk, score in rows]


def _term(token: str) -> str:
    return token.translate(_WHOLE)

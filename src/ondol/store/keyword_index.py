"""Keyword search through postings in memory, with FTS5 as the truth and until they are there.

The second search of a collection with enough chunks has its postings made in the background; from
then on they follow the database as vectors do: ids above the last are read, ids that are gone are
dropped, and a new ``lexicon`` (keywords of old chunks rewritten) means making them anew. What is
found, and its scores, are the same on both ways. Thread-safe; searching holds no lock.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ondol.core.errors import StoreError
from ondol.store import collections, filters, lexical
from ondol.store.collections import CollectionRow
from ondol.store.database import Database
from ondol.store.filters import FilterCondition
from ondol.store.index_builder import IndexBuilder
from ondol.store.matrix import Ids
from ondol.store.postings import Postings
from ondol.store.vector_search import read_ids

ABOVE = 2_000
"""From so many chunks on postings are made; fewer, FTS5 answers in a few milliseconds."""

RESIDENT_BYTES = 256 * 2**20
_BYTES_A_CHUNK = 400  # a guess from above, for deciding before they are made
_MOST_AT_ONCE = 2_000  # chunks that a search reads to catch up; more is for the background


@dataclass(frozen=True, slots=True)
class LexicalState:
    """How keywords of a collection are searched: chunks in memory (0: through FTS5), and bytes."""

    chunks: int
    memory_bytes: int


class LexicalIndex:
    """The postings of all collections of ``database``, ``resident_bytes`` of them at most."""

    def __init__(
        self, database: Database, *, above: int = ABOVE, resident_bytes: int = RESIDENT_BYTES
    ) -> None:
        self._database = database
        self._above = above
        self._resident_bytes = resident_bytes
        self._guard = threading.Lock()
        self._locks: dict[int, threading.Lock] = {}
        self._postings: dict[int, Postings] = {}
        self._asked: set[int] = set()
        self._closing = False
        self._builder = IndexBuilder(self._build)

    def search(
        self,
        collection: str,
        tokens: Sequence[str],
        *,
        limit: int,
        condition: FilterCondition | None = None,
        expansions: Sequence[str] = (),
    ) -> list[tuple[int, float]]:
        """Return up to ``limit`` (chunk, BM25) that hold any token, best first, ties by id."""
        asked = lexical.asked(tokens, expansions)
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            postings = self._resident(found)
            if postings is not None:
                allowed = _allowed(connection, found, condition)
            elif not self._can_catch_up(connection, found):
                self._wish(connection, found)
                return lexical.search(connection, found.id, asked, limit=limit, condition=condition)
        if postings is None:
            with self._catching_up(found.id), self._database.read() as connection:
                found = collections.find(connection, collection)
                postings = self._caught_up(connection, found)
                if postings is None:
                    return lexical.search(
                        connection, found.id, asked, limit=limit, condition=condition
                    )
                allowed = _allowed(connection, found, condition)
        return _best(postings, asked, limit=limit, allowed=allowed)

    def refresh(self, collection: str) -> None:
        """Make the postings of a collection now, or bring them up to date, however few chunks."""
        self._build(collection)

    def state(self, collection: str) -> LexicalState:
        """Return how the collection is searched, without changing it."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
        postings = self._postings.get(found.id)
        if postings is None:
            return LexicalState(0, 0)
        return LexicalState(postings.chunks, postings.nbytes)

    def forget(self, collection: int) -> None:
        """Drop the postings of a collection that is deleted or was mended."""
        with self._catching_up(collection):
            self._postings.pop(collection, None)
            self._asked.discard(collection)

    def forget_all(self) -> None:
        """Drop the postings of every collection; they are made again when asked for."""
        for collection in list(self._postings):
            self.forget(collection)

    def close(self) -> None:
        """Stop building and let go of everything."""
        self._closing = True
        self._builder.close()
        self._postings.clear()

    def _resident(self, found: CollectionRow) -> Postings | None:
        postings = self._postings.get(found.id)
        return postings if postings is not None and postings.stamp == found.stamp else None

    def _can_catch_up(self, connection: sqlite3.Connection, found: CollectionRow) -> bool:
        postings = self._postings.get(found.id)
        return (
            postings is not None
            and postings.lexicon == found.lexicon
            and _newer(connection, found.id, postings.last) <= _MOST_AT_ONCE
        )

    def _caught_up(self, connection: sqlite3.Connection, found: CollectionRow) -> Postings | None:
        """Bring the postings to the moment that ``connection`` reads; ``None`` where they left."""
        postings = self._postings.get(found.id)
        if postings is None or postings.lexicon != found.lexicon:
            return None
        if postings.stamp != found.stamp:
            postings = self._updated(connection, found, postings)
            self._postings[found.id] = postings
        return postings

    def _updated(
        self, connection: sqlite3.Connection, found: CollectionRow, postings: Postings
    ) -> Postings:
        postings = postings.added(self._rows(connection, found.id, postings.last))
        if lexical.count(connection, found.id) != postings.chunks:
            postings = postings.keeping(read_ids(connection, found.id))
        return replace(postings, stamp=found.stamp)

    def _rows(
        self, connection: sqlite3.Connection, collection: int, after: int
    ) -> Iterator[tuple[int, list[str]]]:
        for chunk, terms in lexical.rows(connection, collection, after=after):
            if self._closing:
                raise StoreError(
                    "the store is being closed", hint="open the store again", code="store_closed"
                )
            yield chunk, terms

    def _wish(self, connection: sqlite3.Connection, found: CollectionRow) -> None:
        """Have postings made if this is not the first search and there is enough to search."""
        if found.id not in self._asked:
            self._asked.add(found.id)
            return
        chunks = lexical.count(connection, found.id)
        others = sum(p.nbytes for key, p in list(self._postings.items()) if key != found.id)
        room = self._resident_bytes - others
        if chunks >= self._above and chunks * _BYTES_A_CHUNK <= room:
            self._builder.want(found.name)

    def _build(self, name: str) -> None:
        """Make postings beside the running searches; only putting them in place takes the lock."""
        with self._database.read() as connection:
            found = collections.find(connection, name)
            known = self._postings.get(found.id)
            if known is None or known.lexicon != found.lexicon:
                known = Postings(lexicon=found.lexicon)
            postings = self._updated(connection, found, known)
        with self._catching_up(found.id):
            held = self._postings.get(found.id)
            if held is None or held.lexicon != postings.lexicon or held.last <= postings.last:
                self._postings[found.id] = postings

    @contextmanager
    def _catching_up(self, collection: int) -> Iterator[None]:
        """Hold the right to change postings. Begin a read transaction inside it, never before."""
        with self._guard:
            lock = self._locks.setdefault(collection, threading.Lock())
        with lock:
            yield


def _newer(connection: sqlite3.Connection, collection: int, last: int) -> int:
    found: int = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM chunks WHERE collection_id = ? AND id > ? LIMIT ?)",
        (collection, last, _MOST_AT_ONCE + 1),
    ).fetchone()[0]
    return found


def _allowed(
    connection: sqlite3.Connection, found: CollectionRow, condition: FilterCondition | None
) -> Ids | None:
    return None if condition is None else filters.candidates(connection, found.id, condition)


def _best(
    postings: Postings, asked: lexical.Asked, *, limit: int, allowed: Ids | None
) -> list[tuple[int, float]]:
    every = list(asked)
    counts = dict(zip(every, postings.frequencies(every), strict=True))
    found: list[tuple[int, float]] = []
    for terms in lexical.rounds(counts, total=postings.chunks):
        weights = [asked[term] for term in terms]
        found = postings.best(terms, weights, limit=limit, allowed=allowed)
        if len(found) >= limit:
            break
    return found

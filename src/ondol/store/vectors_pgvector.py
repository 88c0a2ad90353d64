"""Vector search in a PostgreSQL with pgvector, for vectors that this process should not hold.

The server holds a copy of ``chunks.vector`` and finds candidates by HNSW over ``halfvec``; the
database of the home stays the truth, decides which candidates are alive and scores them exactly.
A table is level with a collection when it carries its stamp. Rows that differ are moved in the
background; until then the few it lacks are compared here, or all of them where it is far behind.
One schema belongs to one home.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import StoreError
from ondol.store import collections, filters
from ondol.store.collections import CollectionRow
from ondol.store.database import Database
from ondol.store.filters import FilterCondition
from ondol.store.index_builder import IndexBuilder
from ondol.store.matrix import Ids, Matrix
from ondol.store.pgvector_table import Connections, Table, as_array
from ondol.store.vector_search import (
    Contents,
    Hit,
    VectorState,
    contents_of,
    ids_after,
    read_ids,
    read_rows,
    require_fit,
    row_hashes,
)

INDEX_ABOVE = 10_000
"""From so many rows on a table gets an HNSW index; PostgreSQL scans smaller ones exactly."""

_LOG = logging.getLogger("ondol.store")
_OVERSAMPLING = 2
_SPARE = 32
_TAIL = 4_000  # rows that the table lacks and that are compared here
_NONE: Ids = np.empty(0, np.int64)
_SCAN_FILTERED = 5_000  # rows that pass a filter and are compared one by one


class PgVectors:
    """Searches the collections of ``database`` in the PostgreSQL at ``url``.

    Raises ``StoreError`` (``vectors_unavailable``) where the server cannot be reached; the home
    is not harmed by that.
    """

    def __init__(
        self,
        database: Database,
        url: str,
        *,
        schema: str = "ondol",
        index_above: int = INDEX_ABOVE,
        background: bool = True,
    ) -> None:
        self._database = database
        self._index_above = index_above
        self._connections = Connections(url, schema=schema)
        self._guard = threading.Lock()
        self._seen: dict[int, set[str]] = {}
        self._approximate: Counter[int] = Counter()
        self._builder = IndexBuilder(self.refresh) if background else None

    def nearest(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        condition: FilterCondition | None = None,
    ) -> list[Hit]:
        """Return up to ``limit`` (chunk, cosine), best first, ties by id."""
        hits = self._answer(collection, query, limit=limit, condition=condition, whole=False)
        if hits is None:
            if self._builder is not None:
                self._builder.want(collection)
            else:
                self.refresh(collection)
            hits = self._answer(collection, query, limit=limit, condition=condition, whole=True)
        return hits or []

    def _answer(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        condition: FilterCondition | None,
        whole: bool,
    ) -> list[Hit] | None:
        """Return the hits, or ``None`` where the table cannot say and ``whole`` is not allowed.

        ``whole`` compares all vectors of the home's database, as long as the table cannot say.
        """
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            require_fit(found, query)
            if limit < 1 or not np.any(query):
                return []
            allowed = None
            if condition is not None:
                allowed = filters.candidates(connection, found.id, condition)
            hits = self._search(connection, found, query, limit=limit, allowed=allowed)
            if hits is None and whole:
                rows = _matrix(found, *read_rows(connection, found, after=0))
                return rows.nearest(query, limit=limit, allowed=allowed)
            return hits

    def refresh(self, collection: str) -> None:
        """Move the rows that differ, and build the index where it is missing."""
        with self._connections.lasting() as server:
            with self._database.read() as connection:
                found = collections.find(connection, collection)
            table = Table(server, self._connections.schema, found.id, found.dimensions)
            table.lock()
            with self._database.read() as connection:
                found = collections.find(connection, collection)
                level = table.stamp() == found.stamp and table.exists()
                if not level:
                    self._level(connection, found, table)
            if not level:
                table.index(above=self._index_above)
                table.mark(found.stamp)
        with self._guard:
            self._seen.setdefault(found.id, set()).add(found.stamp)

    def state(self, collection: str) -> VectorState:
        """Return the rows, and the bytes that table and index take on the server."""
        self.refresh(collection)
        with self._database.read() as connection:
            found = collections.find(connection, collection)
        with self._connections.lent() as server:
            table = Table(server, self._connections.schema, found.id, found.dimensions)
            rows = table.count()
            return VectorState(
                kind="pgvector",
                rows=rows,
                indexed=rows if table.indexed() else 0,
                memory_bytes=0,
                disk_bytes=table.bytes(),
                approximate=self._approximate[found.id],
            )

    def contents(self, collection: str) -> Contents:
        """Return count and checksum of the vectors as they lie on the server."""
        self.refresh(collection)
        with self._database.read() as connection:
            found = collections.find(connection, collection)
        with self._connections.lasting() as server:
            table = Table(server, self._connections.schema, found.id, found.dimensions)
            return contents_of(*table.contents())

    def forget(self, collection: int) -> None:
        """Drop the table of a collection; that a server is gone is logged."""
        try:
            with self._connections.lasting() as server:
                table = Table(server, self._connections.schema, collection, 0)
                table.lock()
                table.drop()
        except StoreError as error:
            _LOG.warning("vectors of collection %d stay in PostgreSQL: %s", collection, error)

    def close(self) -> None:
        """End the thread and close the connections."""
        if self._builder is not None:
            self._builder.close()
        self._connections.close()

    def _search(
        self,
        connection: sqlite3.Connection,
        found: CollectionRow,
        query: NDArray[np.float32],
        *,
        limit: int,
        allowed: Ids | None,
    ) -> list[Hit] | None:
        """Return the hits, or ``None`` where the table is of another time."""
        with self._connections.lent() as server:
            table = Table(server, self._connections.schema, found.id, found.dimensions)
            stamp = table.stamp()
            level = stamp == found.stamp
            if not (level or stamp in self._seen.get(found.id, ())):
                return None
            tail = _NONE if level else ids_after(connection, found.id, table.last())
            if len(tail) > _TAIL:
                return None
            wanted = _OVERSAMPLING * limit + _SPARE
            near = self._near(table, query, wanted=wanted, allowed=allowed)
        if not level and self._builder is not None:
            self._builder.want(found.name)
        if allowed is not None:
            tail = np.intersect1d(tail, allowed, assume_unique=True)
        rows = _rows_of(connection, found, np.union1d(near, tail))
        if len(near) == wanted and rows.alive < limit:
            return None  # most of what the table proposes has been deleted
        return rows.nearest(query, limit=limit)

    def _near(
        self, table: Table, query: NDArray[np.float32], *, wanted: int, allowed: Ids | None
    ) -> Ids:
        near = _Nearest(table, query, allowed=allowed)
        if allowed is not None and len(allowed) <= _SCAN_FILTERED:
            return near.scanned(wanted)
        ids = near.indexed(wanted)
        # Fewer than there are: the index gave up (hnsw.max_scan_tuples), so all are compared.
        if len(ids) < wanted:
            return near.scanned(wanted)
        if table.indexed():
            with self._guard:
                self._approximate[table.collection] += 1
        return ids

    def _level(self, connection: sqlite3.Connection, found: CollectionRow, table: Table) -> None:
        stamp = table.stamp()
        if stamp is None or not table.exists():
            table.make()
            table.insert(*read_rows(connection, found, after=0))
            table.analyse()
        elif stamp in self._seen.get(found.id, ()):
            table.insert(*read_rows(connection, found, after=table.last()))
            table.delete(np.setdiff1d(table.ids(), read_ids(connection, found.id)))
        else:
            # Whoever wrote it, perhaps from another copy of this home: every row is compared.
            ids, rows = read_rows(connection, found, after=0)
            held, hashes = table.hashes()
            wanted = np.stack((ids.astype(np.uint64), row_hashes(ids, rows)), axis=1)
            there = np.stack((held.astype(np.uint64), hashes), axis=1)
            table.delete(held[~_among(there, wanted)])
            missing = ~_among(wanted, there)
            table.insert(ids[missing], rows[missing])


class _Nearest:
    """One search in one table, by the index or by comparing all rows that count."""

    def __init__(self, table: Table, query: NDArray[np.float32], *, allowed: Ids | None) -> None:
        self._table = table
        unit = query / np.linalg.norm(query)
        self._values = {"query": "[" + ",".join(f"{value:.7g}" for value in unit.tolist()) + "]"}
        self._where = ""
        if allowed is not None:
            self._where = "WHERE id = ANY(CAST(:ids AS bigint[]))"
            self._values["ids"] = as_array(allowed)

    def indexed(self, count: int) -> Ids:
        return self._run(
            f"SELECT id FROM {self._table.name} {self._where} "
            "ORDER BY vector <=> CAST(:query AS halfvec) LIMIT CAST(:count AS bigint)",
            count,
        )

    def scanned(self, count: int) -> Ids:
        return self._run(
            f"WITH passing AS MATERIALIZED (SELECT id, vector FROM {self._table.name} "
            f"{self._where}) SELECT id FROM passing "
            "ORDER BY vector <=> CAST(:query AS halfvec), id LIMIT CAST(:count AS bigint)",
            count,
        )

    def _run(self, sql: str, count: int) -> Ids:
        rows = self._table.connection.run(sql, **self._values, count=count)
        ids: Ids = np.sort(np.fromiter((row[0] for row in rows), np.int64))
        return ids


def _rows_of(connection: sqlite3.Connection, found: CollectionRow, ids: Ids) -> Matrix:
    """Return the vectors that the database holds of ``ids``; others are gone."""
    rows = connection.execute(
        "SELECT id, vector FROM chunks WHERE id IN (SELECT value FROM json_each(?)) "
        "AND collection_id = ? ORDER BY id",
        (json.dumps(ids.tolist()), found.id),
    ).fetchall()
    ids = np.fromiter((row[0] for row in rows), np.int64)
    vectors = np.frombuffer(b"".join(row[1] for row in rows), "<f2")
    return _matrix(found, ids, vectors.reshape(len(rows), found.dimensions))


def _matrix(found: CollectionRow, ids: Ids, rows: NDArray[np.float16]) -> Matrix:
    return Matrix(found.dimensions).appended(ids, rows, dtype=np.dtype(np.float16))


def _among(pairs: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which of ``pairs`` (n, 2), ids ascending, are in ``others`` as well."""
    places = np.searchsorted(others[:, 0], pairs[:, 0])
    inside = places < len(others)
    equal = np.zeros(len(pairs), bool)
    equal[inside] = np.all(others[places[inside]] == pairs[inside], axis=1)
    return equal

"""Exact vector search over the float16 vectors that the database holds.

Owns the resident matrix of each collection and its derived file. The truth is ``chunks.vector``:
chunk ids are never reused and a chunk's vector never changes, so a matrix is brought up to date by
reading ids above its last and dropping ids that are gone, whoever wrote them, in any process.
Thread-safe; searching holds no lock.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import StoreError
from ondol.store import ann_file, collections, filters, vector_file
from ondol.store.collections import CollectionRow
from ondol.store.database import Database
from ondol.store.filters import FilterCondition
from ondol.store.matrix import Ids, Matrix, Segment
from ondol.store.vector_file import VectorFile
from ondol.store.vector_search import (
    Contents,
    Hit,
    VectorState,
    contents_of,
    read_ids,
    read_rows,
    require_fit,
)

_SINGLE = np.dtype(np.float32)
_HALF = np.dtype(np.float16)
_PATHS = (vector_file.path_of, ann_file.path_of)
_LOG = logging.getLogger("ondol.store")


class VectorIndex:
    """The matrices of all collections of ``database``, with their files under ``folder``.

    ``resident_bytes`` bounds what is held as float32; past it matrices stay float16 (mapped from
    the file where possible), at half the memory and several times the search time.
    """

    def __init__(self, database: Database, folder: Path, *, resident_bytes: int) -> None:
        self._database = database
        self._folder = folder
        self._resident_bytes = resident_bytes
        self._guard = threading.Lock()
        self._locks: dict[int, threading.Lock] = {}
        self._matrices: dict[int, Matrix] = {}
        self._written: dict[int, int] = {}

    def nearest(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        condition: FilterCondition | None = None,
    ) -> list[Hit]:
        """Return up to ``limit`` (chunk, cosine), best first, ties by id; exact."""
        _, matrix, allowed = self.view(collection, query, condition=condition)
        return matrix.nearest(query, limit=limit, allowed=allowed)

    def view(
        self, collection: str, query: NDArray[np.float32], *, condition: FilterCondition | None
    ) -> tuple[CollectionRow, Matrix, Ids | None]:
        """Return the matrix of now and, with a condition, the ids that meet it, of one moment."""

        def look(connection: sqlite3.Connection) -> tuple[CollectionRow, Ids | None]:
            found = collections.find(connection, collection)
            require_fit(found, query)
            if condition is None:
                return found, None
            return found, filters.candidates(connection, found.id, condition)

        with self._database.read() as connection:
            found, allowed = look(connection)
        matrix = self.resident(found)
        if matrix is None:
            # Look again inside: filter and matrix must be of the same moment.
            with self.catching_up(found.id), self._database.read() as connection:
                found, allowed = look(connection)
                matrix = self.catch_up(connection, found)
        return found, matrix, allowed

    def current(self, collection: str) -> tuple[CollectionRow, Matrix]:
        """Return a collection with its matrix of now."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
        matrix = self.resident(found)
        if matrix is None:
            with self.catching_up(found.id), self._database.read() as connection:
                found = collections.find(connection, collection)
                matrix = self.catch_up(connection, found)
        return found, matrix

    def refresh(self, collection: str) -> None:
        """Bring the matrix up to date now instead of at the next search."""
        self.current(collection)

    def state(self, collection: str) -> VectorState:
        """Return how the collection is searched and what that costs."""
        found, matrix = self.current(collection)
        return VectorState(
            kind="exact",
            rows=matrix.alive,
            indexed=0,
            memory_bytes=matrix.nbytes,
            disk_bytes=vector_file.size(self._path(found.id)),
        )

    def contents(self, collection: str) -> Contents:
        """Return the count and checksum of the vectors in the matrix."""
        _, matrix = self.current(collection)
        return contents_of(*matrix.contents())

    def resident(self, collection: CollectionRow) -> Matrix | None:
        """Return the matrix if it is in memory and up to date with ``collection``."""
        matrix = self._matrices.get(collection.id)
        return matrix if matrix is not None and matrix.stamp == collection.stamp else None

    @contextmanager
    def catching_up(self, collection: int) -> Iterator[None]:
        """Hold the right to ``catch_up``. Begin the read transaction inside it, never before."""
        with self._guard:
            lock = self._locks.setdefault(collection, threading.Lock())
        with lock:
            yield

    def catch_up(self, connection: sqlite3.Connection, collection: CollectionRow) -> Matrix:
        """Bring the matrix to the moment that ``connection`` reads, and return it."""
        known = self._matrices.get(collection.id)
        matrix = known if known is not None else self._from_file(collection)
        if matrix.stamp != collection.stamp:
            matrix = self._updated(connection, collection, matrix)
        self._matrices[collection.id] = matrix
        return matrix

    def wrote(self, collection: int, rows: int) -> None:
        """Note that this process changed ``rows`` vectors, for the decision to save."""
        with self._guard:
            self._written[collection] = self._written.get(collection, 0) + rows

    def forget(self, collection: int) -> None:
        """Drop the matrix and the file of a collection that is deleted or to be built anew."""
        with self.catching_up(collection):
            self._matrices.pop(collection, None)
            with self._guard:
                self._written.pop(collection, None)
            self._path(collection).unlink(missing_ok=True)
            ann_file.path_of(self._folder, collection).unlink(missing_ok=True)

    def file_is_usable(self, collection: CollectionRow) -> bool:
        """Return whether the file of a collection is whole and the one last written."""
        return collection.snapshot is not None and vector_file.usable(
            self._path(collection.id), stamp=collection.snapshot, dimensions=collection.dimensions
        )

    def save(self, name: str, *, always: bool = False) -> bool:
        """Write the file of a collection where it is worth it; return whether it was written.

        It is where there is no usable file, or more than a tenth of the rows changed since.
        """
        with self._database.read() as connection:
            found = collections.find(connection, name)
        with self.catching_up(found.id):
            with self._database.read() as connection:
                found = collections.find(connection, name)
                if not (always or self._worth_saving(connection, found)):
                    return False
                matrix = self.catch_up(connection, found)
            ids, rows = matrix.contents()
            vector_file.save(
                self._path(found.id), VectorFile(stamp=matrix.stamp, ids=ids, rows=rows)
            )
            with self._database.write() as connection:
                collections.mark_snapshot(connection, found.id, matrix.stamp)
            self._matrices[found.id] = _saved(matrix)
            with self._guard:
                self._written.pop(found.id, None)
        return True

    def close(self) -> None:
        """Save what is worth it. A file that cannot be written is logged: it is only derived."""
        with self._database.read() as connection:
            names = [
                row.name
                for row in collections.rows(connection)
                if row.id in self._matrices or row.id in self._written
            ]
        for name in names:
            try:
                self.save(name)
            except (OSError, StoreError) as error:
                _LOG.warning("vector file of collection %r not written: %s", name, error)
        self._matrices.clear()

    def sweep(self) -> list[Path]:
        """Remove files that belong to no collection (a crash may leave them); return them."""
        stray = self.stray()
        for path in stray:
            path.unlink(missing_ok=True)
        return stray

    def stray(self) -> list[Path]:
        """Return the files under the folder that belong to no collection."""
        try:
            # Listed before the collections are read: a file seen here whose collection is not
            # there then has none, for a collection is committed before its file is written.
            files = sorted(self._folder.iterdir())
        except FileNotFoundError:
            return []
        with self._database.read() as connection:
            ids = {row.id for row in collections.rows(connection)}
        known = {path_of(self._folder, row) for row in ids for path_of in _PATHS}
        return [path for path in files if path not in known and not _in_the_making(path)]

    def _worth_saving(self, connection: sqlite3.Connection, collection: CollectionRow) -> bool:
        count = _count(connection, collection.id)
        if collection.snapshot is None or not self._path(collection.id).exists():
            return count > 0
        matrix = self._matrices.get(collection.id)
        changed = matrix.unsaved if matrix is not None else 0
        return 10 * max(changed, self._written.get(collection.id, 0)) > count

    def _path(self, collection: int) -> Path:
        return vector_file.path_of(self._folder, collection)

    def _from_file(self, collection: CollectionRow) -> Matrix:
        empty = Matrix(dimensions=collection.dimensions)
        if collection.snapshot is None:
            return empty
        path = self._path(collection.id)
        file = vector_file.load(path, dimensions=collection.dimensions)
        if file is None or file.stamp != collection.snapshot:
            _LOG.info("%s is not the file that was written; vectors come from the database", path)
            return empty
        if not len(file.ids):
            return _saved(empty, stamp=file.stamp)
        dtype = self._dtype(collection, len(file.ids))
        # A float16 matrix stays mapped; a float32 one is converted into memory.
        rows = file.rows if dtype == _HALF else np.asarray(file.rows, dtype)
        segment = Segment(np.array(file.ids), rows)
        return Matrix(
            dimensions=collection.dimensions,
            stamp=file.stamp,
            segments=(segment,),
            last=int(file.ids[-1]),
        )

    def _updated(
        self, connection: sqlite3.Connection, collection: CollectionRow, matrix: Matrix
    ) -> Matrix:
        ids, rows = read_rows(connection, collection, after=matrix.last)
        dtype = self._dtype(collection, matrix.alive + len(ids))
        matrix = matrix.appended(ids, rows, dtype=dtype)
        if _count(connection, collection.id) != matrix.alive:
            matrix = matrix.keeping(read_ids(connection, collection.id))
        return _stamped(matrix, collection.stamp)

    def _dtype(self, collection: CollectionRow, rows: int) -> np.dtype[Any]:
        others = sum(m.nbytes for key, m in list(self._matrices.items()) if key != collection.id)
        wanted = rows * collection.dimensions * _SINGLE.itemsize
        return _SINGLE if others + wanted <= self._resident_bytes else _HALF


def _count(connection: sqlite3.Connection, collection: int) -> int:
    count: int = connection.execute(
        "SELECT count(*) FROM chunks WHERE collection_id = ?", (collection,)
    ).fetchone()[0]
    return count


def _stamped(matrix: Matrix, stamp: str) -> Matrix:
    return Matrix(matrix.dimensions, stamp, matrix.segments, matrix.last, matrix.unsaved)


def _saved(matrix: Matrix, *, stamp: str | None = None) -> Matrix:
    return Matrix(
        matrix.dimensions,
        stamp if stamp is not None else matrix.stamp,
        matrix.segments,
        matrix.last,
    )


def _in_the_making(path: Path) -> bool:
    """Whether a living process may be writing this temporary file now (its id is in the name)."""
    process = path.stem.rpartition(".")[2]
    return path.suffix == ".tmp" and process.isdigit() and Path(f"/proc/{process}").exists()

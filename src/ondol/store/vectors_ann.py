"""Approximate vector search for large collections, proven row by row against the exact matrix.

A graph (``ann_graph``) proposes candidates; the matrix of ``VectorIndex`` knows which are alive,
scores them exactly, and is scanned itself where a collection or a filter leaves few rows, where the
graph is not there yet, or where it proposes too few. So a graph can cost recall, never a wrong
score, a deleted chunk or a filter. Graphs are built in the background and only ever derived.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ondol.store import ann_file, collections, vector_file
from ondol.store.ann_graph import LIBRARY, Graph
from ondol.store.database import Database
from ondol.store.filters import FilterCondition
from ondol.store.index_builder import IndexBuilder
from ondol.store.matrix import Ids, Matrix
from ondol.store.vector_search import Contents, Hit, VectorState, row_hashes
from ondol.store.vectors import VectorIndex

ABOVE = 50_000
"""From so many rows on a graph is used, unless told otherwise (ADR 0029 has the figures)."""

_LOG = logging.getLogger("ondol.store")
_OVERSAMPLING = 3  # candidates scored exactly for each hit wanted
_SPARE = 64  # and so many more: a few hits need relatively more
_FOLD = 512  # rows above the graph that are worth a build
_BLOCK = 4096  # rows read from the matrix at a time while building


@dataclass(frozen=True, slots=True)
class _Frontier:
    """Which rows of a matrix the graph of ``rows`` does not have, and how many are deleted."""

    tail: Ids
    dead: int
    rows: int

    @property
    def decayed(self) -> bool:
        """Whether it is mostly of deleted rows, which stay in it as stepping stones."""
        return 2 * self.dead > self.rows

    @property
    def worth_a_build(self) -> bool:
        return self.decayed or len(self.tail) >= _FOLD


class AnnVectors:
    """Searches the collections of ``exact`` that have ``above`` rows or more through graphs.

    Files lie beside the matrices under ``folder``. Without ``background`` a graph is built only by
    ``refresh``. Closing leaves ``exact`` open.
    """

    def __init__(
        self,
        database: Database,
        exact: VectorIndex,
        folder: Path,
        *,
        above: int = ABOVE,
        background: bool = True,
    ) -> None:
        self._database = database
        self._exact = exact
        self._folder = folder
        self._above = max(1, above)
        self._guard = threading.Lock()
        self._graphs: dict[int, Graph] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._age: dict[int, int] = {}  # how often a collection was forgotten
        self._approximate: Counter[int] = Counter()
        self._closing = False
        self._builder = IndexBuilder(self._build) if background else None

    def nearest(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        condition: FilterCondition | None = None,
    ) -> list[Hit]:
        """Return up to ``limit`` (chunk, cosine), best first, ties by id.

        Exact where at most ``above`` rows come into question, else with a recall that the
        contract suite holds above 0.98.
        """
        found, matrix, allowed = self._exact.view(collection, query, condition=condition)
        rows = matrix.alive if allowed is None else len(allowed)
        if rows < self._above:
            return matrix.nearest(query, limit=limit, allowed=allowed)
        graph = self._graphs.get(found.id)
        frontier = _frontier(matrix, graph) if graph is not None else None
        if self._builder is not None and (frontier is None or frontier.worth_a_build):
            self._builder.want(found.name)
        if graph is None or frontier is None or limit < 1 or not np.any(query):
            return matrix.nearest(query, limit=limit, allowed=allowed)
        chosen = _candidates(matrix, graph, frontier, query, limit=limit, allowed=allowed)
        if chosen is None:
            return matrix.nearest(query, limit=limit, allowed=allowed)
        with self._guard:
            self._approximate[found.id] += 1
        return matrix.nearest(query, limit=limit, allowed=chosen)

    def refresh(self, collection: str) -> None:
        """Bring matrix and graph up to date now, and write the graph where that is worth it."""
        self._build(collection)

    def state(self, collection: str) -> VectorState:
        """Return how the collection is searched and what that costs."""
        exact = self._exact.state(collection)
        found, matrix = self._exact.current(collection)
        graph = self._graphs.get(found.id)
        if graph is None or matrix.alive < self._above:
            return exact
        return VectorState(
            kind="ann",
            rows=matrix.alive,
            indexed=matrix.alive - len(_frontier(matrix, graph).tail),
            memory_bytes=exact.memory_bytes + graph.memory_bytes,
            disk_bytes=exact.disk_bytes + vector_file.size(self._path(found.id)),
            approximate=self._approximate[found.id],
        )

    def contents(self, collection: str) -> Contents:
        """Return count and checksum of the matrix, which decides every answer."""
        return self._exact.contents(collection)

    def forget(self, collection: int) -> None:
        """Drop the graph of a collection, in memory and on disk."""
        with self._guard:
            # Ends a build that is under way.
            self._age[collection] = self._age.get(collection, 0) + 1
        with self._building(collection):
            self._graphs.pop(collection, None)
            self._path(collection).unlink(missing_ok=True)

    def close(self) -> None:
        """End the builder and write the graphs worth it; a failure to write is logged."""
        self._closing = True
        if self._builder is not None:
            self._builder.close()
        with self._database.read() as connection:
            known = {row.id for row in collections.rows(connection)}
        for collection in [key for key in self._graphs if key in known]:
            with self._building(collection):
                try:
                    self._save(collection)
                except OSError as error:
                    _LOG.warning("%s not written: %s", self._path(collection), error)
        self._graphs.clear()

    def _build(self, name: str) -> None:
        found, _ = self._exact.current(name)
        with self._building(found.id):
            found, matrix = self._exact.current(name)
            if matrix.alive < self._above:
                return
            age = self._age.get(found.id, 0)
            graph = self._usable(found.id, matrix)
            whole = graph.add(
                matrix.blocks(after=graph.last, size=_BLOCK),
                stopped=lambda: self._closing or self._age.get(found.id, 0) != age,
            )
            if not whole:
                self._graphs.pop(found.id, None)
                return
            self._graphs[found.id] = graph
            # Writing holds searches up, so what is added bit by bit waits for closing.
            self._save(found.id, changed=1 / 2)

    def _usable(self, collection: int, matrix: Matrix) -> Graph:
        """Return the graph in memory, else the one on disk if it fits, else an empty one."""
        graph = self._graphs.get(collection) or self._from_file(collection, matrix)
        if graph is not None and not _frontier(matrix, graph).decayed:
            return graph
        return Graph(matrix.dimensions)

    def _from_file(self, collection: int, matrix: Matrix) -> Graph | None:
        path = self._path(collection)
        file = ann_file.load(path, dimensions=matrix.dimensions, library=LIBRARY)
        if file is None:
            return None
        if not _describes(file, matrix):
            _LOG.info("%s is of other vectors; the graph is built again", path)
            return None
        try:
            return Graph(matrix.dimensions, file=file)
        except Exception as error:  # the library's own, whatever its type
            _LOG.info("%s cannot be read (%s); the graph is built again", path, error)
            return None

    def _save(self, collection: int, *, changed: float = 1 / 10) -> None:
        """Write the graph if there is no file or more than that share of it is not in the file."""
        graph = self._graphs[collection]
        path = self._path(collection)
        if path.exists() and graph.unsaved <= changed * len(graph):
            return
        ann_file.save(path, graph.file())
        graph.unsaved = 0

    def _building(self, collection: int) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(collection, threading.Lock())

    def _path(self, collection: int) -> Path:
        return ann_file.path_of(self._folder, collection)


def _frontier(matrix: Matrix, graph: Graph) -> _Frontier:
    covered = len(graph)
    tail = matrix.after(graph.last)
    dead = max(0, covered - (matrix.alive - len(tail)))
    return _Frontier(tail=tail, dead=dead, rows=covered)


def _describes(file: ann_file.GraphFile, matrix: Matrix) -> bool:
    """Whether every row alive up to the file's last id is in it, with the same vector."""
    if not len(file.ids):
        return False
    for ids, rows in matrix.blocks(after=0, size=_BLOCK):
        ids = ids[: np.searchsorted(ids, file.ids[-1], side="right")]
        places = np.searchsorted(file.ids, ids)
        if not np.array_equal(file.ids[places], ids):
            return False
        if not np.array_equal(file.hashes[places], row_hashes(ids, rows[: len(ids)])):
            return False
    return True


def _candidates(
    matrix: Matrix,
    graph: Graph,
    frontier: _Frontier,
    query: NDArray[np.float32],
    *,
    limit: int,
    allowed: Ids | None,
) -> Ids | None:
    """Return the ids among which the best ``limit`` are, or ``None`` to look at all.

    Asks for more until enough of what the graph proposes is alive and passes the filter.
    """
    wanted = _OVERSAMPLING * limit + _SPARE
    passing = matrix.alive if allowed is None else len(allowed)
    count = wanted * max(1, len(graph)) // max(1, passing)
    while 8 * count <= matrix.alive:  # beyond, scanning everything is as quick
        near = matrix.holding(graph.candidates(query, count))
        if allowed is not None:
            near = np.intersect1d(near, allowed, assume_unique=True)
        if len(near) >= wanted:
            tail = frontier.tail
            if allowed is not None:
                tail = np.intersect1d(tail, allowed, assume_unique=True)
            return np.union1d(near, tail)
        count *= 4
    return None

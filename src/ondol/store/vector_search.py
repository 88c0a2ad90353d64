"""What every vector search offers, whatever it finds the nearest rows with.

The database is the truth and each implementation a copy of it that can always be made again. The
suite ``tests/contract/test_vector_stores.py`` is what they all pass. ``Contents`` lets two copies
be compared without moving them: a count and a checksum in which the order of rows plays no part.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import InvalidInput, StoreError
from ondol.store.collections import CollectionRow
from ondol.store.filters import FilterCondition
from ondol.store.matrix import Ids, Rows

Hit = tuple[int, float]
"""A chunk id and the cosine of its vector with the query."""

Hashes = NDArray[np.uint64]

_ID_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class VectorState:
    """How a collection is searched.

    ``rows`` are alive, ``indexed`` of them found through an approximate index (the others are
    compared one by one). ``approximate`` counts the searches that this process answered through
    the index; the others compared every row that came into question. ``memory_bytes`` counts this process only, ``disk_bytes`` what is kept
    beside the database (in a server: there).
    """

    kind: Literal["exact", "ann", "pgvector"]
    rows: int
    indexed: int
    memory_bytes: int
    disk_bytes: int
    approximate: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """How many vectors there are and the sum of their ``row_hashes`` modulo 2^64."""

    rows: int
    checksum: int


class VectorSearch(Protocol):
    """Finds the nearest vectors of a collection; thread-safe.

    Whoever wrote to the database, in whatever process: the next ``nearest`` answers from what it
    holds. Deleted chunks are never returned, scores are the cosines of the stored float16 rows,
    and a condition restricts before ranking.
    """

    def nearest(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        condition: FilterCondition | None = None,
    ) -> list[Hit]:
        """Return up to ``limit`` hits, best first, ties by id.

        ``query`` (d,) may have any length; one of another shape or not finite is
        ``InvalidInput``, an unknown collection ``NotFound``.
        """
        ...

    def refresh(self, collection: str) -> None:
        """Do now, in this thread, what would else be built in the background."""
        ...

    def state(self, collection: str) -> VectorState:
        """Return how the collection is searched and what that costs."""
        ...

    def contents(self, collection: str) -> Contents:
        """Return count and checksum of the vectors that searching really reads."""
        ...

    def forget(self, collection: int) -> None:
        """Drop everything kept for a collection; if it still exists, it is built again."""
        ...

    def close(self) -> None:
        """Save what is worth saving and let go of threads, files and connections."""
        ...


def require_fit(found: CollectionRow, query: NDArray[np.float32]) -> None:
    """Raise ``InvalidInput`` unless ``query`` is a finite vector of the collection's shape."""
    if query.shape != (found.dimensions,) or not np.all(np.isfinite(query)):
        raise InvalidInput(
            f"query vector of shape {query.shape}; collection {found.name!r} needs "
            f"({found.dimensions},), all finite",
            hint=f"embed the query with {found.embedder!r}",
            param="query",
        )


def row_hashes(ids: Ids, rows: Rows) -> Hashes:
    """Return one 64-bit hash (n,) for each id with its row (n, d), as float16.

    Any change of one 16-bit value changes it. Good against mistakes, not against an adversary.
    The mixing is splitmix64's: Steele et al. 2014, https://doi.org/10.1145/2660193.2660195
    """
    words = _words(np.ascontiguousarray(rows, dtype="<f2"))
    odd = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64) * 2 + 1
    mixed: Hashes = (words * odd.astype(np.uint64)).sum(axis=1, dtype=np.uint64)
    mixed ^= ids.astype(np.uint64) * _ID_FACTOR
    for factor, shift in zip(_MIX, (30, 27), strict=True):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= factor
    mixed ^= mixed >> np.uint64(31)
    return mixed


def contents_of(ids: Ids, rows: Rows) -> Contents:
    """Return count and checksum of these rows."""
    return Contents(len(ids), int(row_hashes(ids, rows).sum(dtype=np.uint64)))


def read_rows(
    connection: sqlite3.Connection, collection: CollectionRow, *, after: int
) -> tuple[Ids, NDArray[np.float16]]:
    """Return the ids above ``after``, ascending, and their vectors (n, d), from the database."""
    ids: list[int] = []
    blobs: list[bytes] = []
    width = 2 * collection.dimensions
    for chunk, blob in connection.execute(
        "SELECT id, vector FROM chunks WHERE collection_id = ? AND id > ? ORDER BY id",
        (collection.id, after),
    ):
        if len(blob) != width:
            raise StoreError(
                f"the vector of chunk {chunk} in {collection.name!r} has {len(blob)} bytes, "
                f"not {width}",
                hint="run `ondol doctor --repair`, then ingest the document again",
                code="store_damaged",
            )
        ids.append(chunk)
        blobs.append(blob)
    rows = np.frombuffer(b"".join(blobs), "<f2").reshape(len(ids), collection.dimensions)
    return np.array(ids, np.int64), rows.astype(np.float16, copy=False)


def read_ids(connection: sqlite3.Connection, collection: int) -> Ids:
    """Return all chunk ids of a collection, ascending."""
    return ids_after(connection, collection, 0)


def ids_after(connection: sqlite3.Connection, collection: int, last: int) -> Ids:
    """Return the chunk ids of a collection above ``last``, ascending."""
    rows = connection.execute(
        "SELECT id FROM chunks WHERE collection_id = ? AND id > ? ORDER BY id", (collection, last)
    )
    return np.fromiter((row[0] for row in rows), np.int64)


def _words(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the rows' bytes as 64-bit words (n, ceil(d / 4)), zeros after the last value."""
    missing = -rows.shape[1] % 4
    if missing:
        rows = np.ascontiguousarray(np.pad(rows, ((0, 0), (0, missing))))
    words: NDArray[np.uint64] = rows.view("<u8").astype(np.uint64, copy=False)
    return words

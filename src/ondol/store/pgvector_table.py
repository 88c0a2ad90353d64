"""The table of one collection in PostgreSQL: made, compared, filled, read, inside a transaction.

``vectors_<collection id>`` holds chunk id, the row's hash and the vector as ``halfvec``: the same 16
bits a value that the database of the home holds, moved by binary COPY and never through text.
Source: https://www.postgresql.org/docs/current/sql-copy.html, https://github.com/pgvector/pgvector
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pg8000.native import Connection

from ondol.store.matrix import Ids
from ondol.store.vector_search import Hashes, row_hashes

Halves = NDArray[np.float16]

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_ROWS = 2000  # copied in one message
_IDS = 50_000  # deleted by one statement


@dataclass(frozen=True, slots=True)
class Table:
    """Where the vectors of a collection lie; ``connection`` is inside a transaction."""

    connection: Connection
    schema: str
    collection: int
    dimensions: int

    @property
    def name(self) -> str:
        return f"{self.schema}.vectors_{self.collection}"

    def lock(self) -> None:
        """Keep every other writer of this table out until the transaction ends."""
        self.connection.run(
            "SELECT pg_advisory_xact_lock(hashtext(:table))", table=f"ondol {self.name}"
        )

    def stamp(self) -> str | None:
        """Return the stamp of the contents that the table has; ``None`` where there is none."""
        rows = self.connection.run(
            f"SELECT stamp FROM {self.schema}.collections "
            "WHERE id = CAST(:id AS bigint) AND dimensions = CAST(:size AS integer)",
            id=self.collection,
            size=self.dimensions,
        )
        return str(rows[0][0]) if rows else None

    def make(self) -> None:
        """Make the table, empty; one that is there goes."""
        self.drop()
        self.connection.run(
            f"CREATE TABLE {self.name}(id bigint PRIMARY KEY, hash bigint NOT NULL, "
            f"vector halfvec({self.dimensions}) NOT NULL)"
        )
        # Values of an embedding do not compress; trying to costs time.
        self.connection.run(f"ALTER TABLE {self.name} ALTER vector SET STORAGE PLAIN")

    def drop(self) -> None:
        """Remove the table and what is known of it."""
        self.connection.run(f"DROP TABLE IF EXISTS {self.name}")
        self.connection.run(
            f"DELETE FROM {self.schema}.collections WHERE id = CAST(:id AS bigint)",
            id=self.collection,
        )

    def mark(self, stamp: str) -> None:
        """Record that the table holds the contents under ``stamp``."""
        self.connection.run(
            f"INSERT INTO {self.schema}.collections VALUES "
            "(CAST(:id AS bigint), CAST(:size AS integer), :stamp) "
            "ON CONFLICT (id) DO UPDATE SET dimensions = excluded.dimensions, "
            "stamp = excluded.stamp",
            id=self.collection,
            size=self.dimensions,
            stamp=stamp,
        )

    def exists(self) -> bool:
        rows = self.connection.run("SELECT to_regclass(:name) IS NOT NULL", name=self.name)
        return bool(rows[0][0])

    def index(self, *, above: int) -> None:
        """Make the HNSW index where there are ``above`` rows or more and it is missing."""
        if self.count() < above:
            return
        self.connection.run("SET LOCAL maintenance_work_mem = '256MB'")
        self.connection.run(
            f"CREATE INDEX IF NOT EXISTS vectors_{self.collection}_hnsw ON {self.name} "
            "USING hnsw (vector halfvec_cosine_ops) WITH (m = 16, ef_construction = 128)"
        )

    def analyse(self) -> None:
        """Tell PostgreSQL's planner how much there is now."""
        self.connection.run(f"ANALYZE {self.name}")

    def indexed(self) -> bool:
        """Return whether there is an HNSW index."""
        rows = self.connection.run(
            "SELECT to_regclass(:name) IS NOT NULL",
            name=f"{self.schema}.vectors_{self.collection}_hnsw",
        )
        return bool(rows[0][0])

    def count(self) -> int:
        return int(self.connection.run(f"SELECT count(*) FROM {self.name}")[0][0])

    def bytes(self) -> int:
        """Return what table and indexes take on the server's disk."""
        rows = self.connection.run("SELECT pg_total_relation_size(:name)", name=self.name)
        return int(rows[0][0])

    def insert(self, ids: Ids, rows: Halves) -> None:
        """Add rows (n, d) under ids (n,) that are not there."""
        if len(ids):
            self.connection.run(
                f"COPY {self.name}(id, hash, vector) FROM STDIN (FORMAT binary)",
                stream=_packed(ids, rows, dimensions=self.dimensions),
            )

    def delete(self, ids: Ids) -> None:
        """Remove these ids."""
        for start in range(0, len(ids), _IDS):
            self.connection.run(
                f"DELETE FROM {self.name} WHERE id = ANY(CAST(:ids AS bigint[]))",
                ids=as_array(ids[start : start + _IDS]),
            )

    def last(self) -> int:
        """Return the highest id, 0 where there is none."""
        rows = self.connection.run(f"SELECT coalesce(max(id), 0) FROM {self.name}")
        return int(rows[0][0])

    def ids(self) -> Ids:
        """Return all ids, ascending."""
        return self._read(f"SELECT id FROM {self.name} ORDER BY id", [("id", ">i8")])["id"]

    def hashes(self) -> tuple[Ids, Hashes]:
        """Return all ids, ascending, and the hashes their rows had when they were stored."""
        found = self._read(
            f"SELECT id, hash FROM {self.name} ORDER BY id", [("id", ">i8"), ("hash", ">u8")]
        )
        return found["id"], found["hash"]

    def contents(self) -> tuple[Ids, Halves]:
        """Return all ids, ascending, and the vectors (n, d) as they lie there."""
        vector = [("size", ">i2"), ("unused", ">i2"), ("values", ">f2", (self.dimensions,))]
        found = self._read(
            f"SELECT id, vector FROM {self.name} ORDER BY id", [("id", ">i8"), ("vector", vector)]
        )
        return found["id"], found["vector"]["values"]

    def _read(self, sql: str, columns: list[tuple[str, Any]]) -> NDArray[Any]:
        out = io.BytesIO()
        self.connection.run(f"COPY ({sql}) TO STDOUT (FORMAT binary)", stream=out)
        body = memoryview(out.getvalue())[len(_HEADER) : -len(_END)]
        read: NDArray[Any] = np.frombuffer(body, _tuple(columns))
        return read.astype(read.dtype.newbyteorder("="))


def as_array(ids: Ids) -> str:
    """Return ids as PostgreSQL writes an array."""
    return "{" + ",".join(map(str, ids.tolist())) + "}"


def _packed(ids: Ids, rows: Halves, *, dimensions: int) -> Iterator[bytes]:
    vector = [("size", ">i2"), ("unused", ">i2"), ("values", ">f2", (dimensions,))]
    layout = _tuple([("id", ">i8"), ("hash", ">u8"), ("vector", vector)])
    yield _HEADER
    for start in range(0, len(ids), _ROWS):
        part = slice(start, start + _ROWS)
        block = np.zeros(len(ids[part]), layout)
        block["columns"] = 3
        for name in ("id", "hash", "vector"):
            block[f"{name} bytes"] = layout[name].itemsize
        block["id"], block["hash"] = ids[part], row_hashes(ids[part], rows[part])
        block["vector"]["size"], block["vector"]["values"] = dimensions, rows[part]
        yield block.tobytes()
    yield _END


def _tuple(columns: list[tuple[str, Any]]) -> np.dtype[Any]:
    """Return the layout of one tuple of a binary COPY: a count, then length and value of each."""
    fields: list[tuple[str, Any]] = [("columns", ">i2")]
    for name, kind in columns:
        fields += [(f"{name} bytes", ">i4"), (name, kind)]
    return np.dtype(fields)

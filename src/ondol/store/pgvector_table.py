"""The table of one collection in PostgreSQL: made, compared, filled, read, inside a transaction.

``vectors_<collection id>`` holds chunk id, the row's hash and the vector as ``halfvec``: the same 16
bits a value that the database of the home holds, moved by binary COPY and never through text.
Source: https://www.postgresql.org/docs/current/sql-copy.html, https://github.com/pgvector/pgvector

Connections to a PostgreSQL with pgvector: opened, set up, lent, and their errors translated.

Owns a few idle connections for searches and opens one of its own for each long work. Every failure
leaves as ``StoreError`` with a remedy. Needs the extra ``postgres`` (pg8000, BSD-3-Clause: pure
Python; psycopg is LGPL-3, asyncpg knows asyncio only).
"""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pg8000.native import Connection

from ondol.core.errors import SettingsError, StoreError
from ondol.core.extras import install_command
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


try:
    from pg8000.exceptions import DatabaseError, InterfaceError
    from pg8000.native import Connection
except ImportError as error:
    raise SettingsError(
        "vectors in PostgreSQL need its client, which is not installed",
        hint=f"{install_command('postgres')}, or keep vectors on this machine",
        param="vectors.index",
    ) from error

OLDEST = (0, 8, 4)
"""pgvector before it lacks corrections of HNSW."""

_CONNECT_SECONDS = 10.0
_SEARCH_SECONDS = 30.0
_IDLE = 8
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_FAILURES = (DatabaseError, InterfaceError, OSError)
_SETTINGS = (
    "SET hnsw.iterative_scan = strict_order",
    "SET hnsw.ef_search = 200",
    "SET hnsw.max_scan_tuples = 100000",
    "SET hnsw.scan_mem_multiplier = 4",
)


@dataclass(frozen=True, slots=True)
class _Place:
    host: str
    port: int
    user: str
    password: str | None
    database: str
    encrypted: bool


class Connections:
    """Connections to ``url``; ``schema`` is where the tables of this home lie.

    Opening makes the extension and the schema where they are missing. Raises ``SettingsError``
    for a URL that is none, ``StoreError`` where the server cannot be used.
    """

    def __init__(self, url: str, *, schema: str) -> None:
        self._place = _place(url)
        if not _SCHEMA.fullmatch(schema):
            raise SettingsError(
                f"schema {schema!r}: lower-case letters, digits and _ only, at most 41",
                hint="for example ondol",
                param="vectors.postgres_schema",
            )
        self.schema = schema
        self._guard = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False
        with self.lasting() as connection:
            _prepare(connection, schema)

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """Lend a connection for one search, bounded in time, inside a transaction."""
        with self._translated():
            connection = self._take()
            try:
                yield connection
                connection.run("COMMIT")
            except BaseException:
                _end(connection)
                raise
            self._give_back(connection)

    @contextmanager
    def lasting(self) -> Iterator[Connection]:
        """Lend a connection of its own for long work; commit at the end."""
        with self._translated():
            connection = self._open(seconds=None)
            try:
                connection.run("BEGIN")
                yield connection
                connection.run("COMMIT")
            finally:
                _end(connection)

    def close(self) -> None:
        """Close the idle connections; those lent close when they come back."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            _end(connection)

    def _take(self) -> Connection:
        with self._guard:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                connection.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
                return connection
            except _FAILURES:  # the server was restarted since
                _end(connection)
        connection = self._open(seconds=_SEARCH_SECONDS)
        connection.run("SELECT CAST('[1]' AS halfvec)")  # loads the library, which knows these
        for setting in _SETTINGS:
            connection.run(setting)
        connection.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        return connection

    def _give_back(self, connection: Connection) -> None:
        with self._guard:
            if not self._closed and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        _end(connection)

    def _open(self, *, seconds: float | None) -> Connection:
        place = self._place
        # A socket of our own: the client leaves its own open when the server goes away at once.
        wire = socket.create_connection((place.host, place.port), _CONNECT_SECONDS)
        try:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            wire.settimeout(seconds)
            return Connection(
                place.user,
                sock=wire,
                database=place.database,
                password=place.password,
                ssl_context=place.encrypted,
                application_name="ondol",
            )
        except BaseException:
            wire.close()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            place = self._place
            raise StoreError(
                f"PostgreSQL at {place.host}:{place.port}/{place.database}: {_said(error)}",
                hint="check that it runs and that this user may use the database; "
                "the vectors in ondol.db are whole",
                code="vectors_unavailable",
            ) from error


def _prepare(connection: Connection, schema: str) -> None:
    # Two processes that make the same thing at once would fail in spite of IF NOT EXISTS.
    connection.run("SELECT pg_advisory_xact_lock(hashtext('ondol'))")
    version = _version(connection)
    if version is None:
        connection.run("CREATE EXTENSION vector")
        version = _version(connection) or (0,)
    if version < OLDEST:
        raise StoreError(
            f"pgvector is {'.'.join(map(str, version))}; at least {'.'.join(map(str, OLDEST))}",
            hint="upgrade it, then run ALTER EXTENSION vector UPDATE",
            code="vectors_unavailable",
        )
    connection.run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    connection.run(
        f"CREATE TABLE IF NOT EXISTS {schema}.collections("
        "id bigint PRIMARY KEY, dimensions integer NOT NULL, stamp text NOT NULL)"
    )


def _version(connection: Connection) -> tuple[int, ...] | None:
    rows = connection.run("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    return tuple(int(part) for part in rows[0][0].split(".")) if rows else None


def _place(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
        mode = parse_qs(parts.query, strict_parsing=bool(parts.query)).get("sslmode", ["disable"])
    except ValueError as error:
        raise _no_url(str(error)) from None
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise _no_url("it must begin with postgresql://USER@HOST")
    if not parts.username:
        raise _no_url("it names no user")
    if mode not in (["disable"], ["require"]):
        raise _no_url("sslmode may be disable or require")
    return _Place(
        host=parts.hostname,
        port=port,
        user=unquote(parts.username),
        password=unquote(parts.password) if parts.password else None,
        database=unquote(parts.path.lstrip("/")) or "postgres",
        encrypted=mode == ["require"],
    )


def _no_url(reason: str) -> SettingsError:
    return SettingsError(
        f"vectors.postgres_url is not the URL of a PostgreSQL: {reason}",
        hint="for example postgresql://ondol:secret@127.0.0.1:5432/ondol",
        param="vectors.postgres_url",
    )


def _said(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return str(first.get("M", first)) if isinstance(first, dict) else str(first)


def _end(connection: Connection) -> None:
    with suppress(*_FAILURES):
        connection.close()

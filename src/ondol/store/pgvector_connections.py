"""Connections to a PostgreSQL with pgvector: opened, set up, lent, and their errors translated.

Owns a few idle connections for searches and opens one of its own for each long work. Every failure
leaves as ``StoreError`` with a remedy. Needs the extra ``postgres`` (pg8000, BSD-3-Clause: pure
Python; psycopg is LGPL-3, asyncpg knows asyncio only).
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from ondol.core.errors import SettingsError, StoreError

try:
    from pg8000.exceptions import DatabaseError, InterfaceError
    from pg8000.native import Connection
except ImportError as error:
    raise SettingsError(
        "vectors in PostgreSQL need its client, which is not installed",
        hint="pip install 'ondol[postgres]', or keep vectors on this machine",
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

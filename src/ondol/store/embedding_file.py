"""The SQLite file behind the embedding cache: its shape, its size, its oldest rows.

One table of ``(id, key, entry)``; ids only grow, so the lowest is what was written longest ago. One
connection reads, one writes. Knows no vector and no policy; raises ``sqlite3.Error``, ``OSError``
and ``NotOurs``.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

APPLICATION_ID = 0x4F4E4543  # "ONEC"
VERSION = 1
PAGE_BYTES = 8192
BUSY_SECONDS = 1.0
_ROWS_AT_ONCE = 1000

_SCHEMA = """
CREATE TABLE vectors(
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    entry BLOB NOT NULL
)
"""


class NotOurs(Exception):
    """The file is another program's, or of another version."""


class EmbeddingFile:
    """The file at ``path``, created with its folder where absent, readable by its owner only.

    ``read`` may be called from any thread; everything else from one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._writer = self._connect()
        try:
            self._prepare(self._writer)
            self._reader: sqlite3.Connection | None = self._connect()
            self._reader.execute("PRAGMA query_only = ON")
        except BaseException:
            self._writer.close()
            raise

    def read(self, keys: Sequence[bytes]) -> list[tuple[int, bytes, bytes]]:
        """Return ``(id, key, entry)`` of the keys that are there; never waits for the writer."""
        rows: list[tuple[int, bytes, bytes]] = []
        with self._lock:
            if self._reader is not None:
                for key in keys:
                    rows += self._reader.execute(
                        "SELECT id, key, entry FROM vectors WHERE key = ?", (key,)
                    )
        return rows

    def key_blocks(self) -> Iterator[list[bytes]]:
        """Yield every key, block by block; reads the index only."""
        cursor = self._writer.execute("SELECT key FROM vectors")
        while block := cursor.fetchmany(10_000):
            yield [key for (key,) in block]

    def write(self, rows: Sequence[tuple[bytes, bytes]]) -> int:
        """Write ``(key, entry)`` rows as the newest; return by how many the file grew."""
        grew = 0
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[first : first + _ROWS_AT_ONCE]
            with _Transaction(self._writer):
                old = self._writer.executemany(
                    "DELETE FROM vectors WHERE key = ?", [(key,) for key, _ in block]
                ).rowcount
                self._writer.executemany("INSERT INTO vectors(key, entry) VALUES (?, ?)", block)
            grew += len(block) - max(0, old)
        return grew

    def shrink(self, limit: int) -> int:
        """Delete the oldest rows where ``limit`` bytes are passed, to 5 % below; return how many."""
        if self.used() <= limit:
            return 0
        goal = int(limit * 0.95)
        evicted = 0
        while (over := self.used() - goal) > 0:
            # A page holds at least one row (or a row several pages), so this never takes too many.
            count = max(1, min(_ROWS_AT_ONCE, over // PAGE_BYTES))
            with _Transaction(self._writer):
                gone = self._writer.execute(
                    "DELETE FROM vectors WHERE id IN (SELECT id FROM vectors ORDER BY id LIMIT ?)",
                    (count,),
                ).rowcount
            evicted += gone
            if not gone:
                break
        # ``execute`` would stop after the first freed page: the statement yields a row for each.
        self._writer.executescript("PRAGMA incremental_vacuum")
        return evicted

    def used(self) -> int:
        """Return the bytes of pages in use; the write-ahead log is not in it."""
        pages: int = self._writer.execute("PRAGMA page_count").fetchone()[0]
        free: int = self._writer.execute("PRAGMA freelist_count").fetchone()[0]
        return (pages - free) * PAGE_BYTES

    def middle(self) -> int:
        """Return the id halfway between the oldest row and the newest; 0 for an empty file."""
        low, high = self._writer.execute("SELECT min(id), max(id) FROM vectors").fetchone()
        return 0 if low is None else (low + high) // 2

    def close_reader(self) -> None:
        """End reading; what is read later is nothing."""
        with self._lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def close(self) -> None:
        """Close the file."""
        self.close_reader()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA cache_size = -4000")  # KiB: 4 MB
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        new = self._is_new(connection)
        if new:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise NotOurs(f"{self.path} cannot use a write-ahead log here")
        # A power cut may take the last entries, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 8388608")
        if not new:
            return
        with _Transaction(connection):
            if self._is_new(connection):
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        application: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not application and not version and not tables:
            return True
        if application != APPLICATION_ID:
            raise NotOurs(f"{self.path} is another program's database")
        if version != VERSION:
            raise NotOurs(f"{self.path} has version {version}, this Ondol knows {VERSION}")
        return False


class _Transaction:
    """``BEGIN IMMEDIATE`` … ``COMMIT``, rolled back on any error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

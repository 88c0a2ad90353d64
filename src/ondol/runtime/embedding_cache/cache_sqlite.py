"""The embedding cache in a SQLite file of its own: survives a restart, bounded in bytes.

Reading never waits for writing, a key that is not there is known without touching the disk
(``KeyFilter``), and writing is one thread's work. A file that is damaged, locked or not ours turns
the cache off with a warning and is left as it was; losing the file loses nothing but time.
"""

from __future__ import annotations

import logging
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ondol.core.private_files import private_file
from ondol.runtime.embedding_cache.cache_memory import (
    CachedVector,
    CacheStats,
    WriteBehind,
    pack,
    unpack_all,
)

_log = logging.getLogger("ondol.embedding_cache")

WAITING_BYTES = 16 * 2**20
SMALL_ENTRY = 1024
"""Bytes of a small entry (256 dimensions); the filter is made for a file full of them."""

APPLICATION_ID = 0x4F4E4543  # "ONEC"
VERSION = 1
PAGE_BYTES = 8192
BUSY_SECONDS = 1.0
BITS_PER_KEY = 16
_ROWS_AT_ONCE = 1000
_PROBES = struct.Struct("<4Q")
_FATAL = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}

_SCHEMA = """
CREATE TABLE vectors(
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    entry BLOB NOT NULL
)
"""


class NotOurs(Exception):
    """The file is another program's, or of another version."""


class SqliteEmbeddingCache:
    """Holds at most ``limit_bytes`` in the file at ``path``; opening never raises.

    What goes first is what was written longest ago; an entry of the older half that is read is
    written anew, so entries in use stay, without a write for every read.
    """

    def __init__(self, path: Path, *, limit_bytes: int, gather_seconds: float = 0.25) -> None:
        self.path = path
        self._limit = limit_bytes
        self._counting = threading.Lock()
        self._entries = self._bytes = 0
        self._hits = self._misses = self._evicted = self._errors = 0
        self._renew_below = 0
        self._filter = KeyFilter(limit_bytes // SMALL_ENTRY)
        self._learned = False
        self._warned: set[int] = set()
        self._off = ""
        self._behind: WriteBehind | None = None
        try:
            self._file = EmbeddingFile(path)
            self._look_at_size()
        except (sqlite3.Error, OSError, NotOurs) as error:
            self._turn_off(str(error))
            return
        self._behind = WriteBehind(
            self._write,
            name="embedding-cache",
            limit_bytes=WAITING_BYTES,
            gather_seconds=gather_seconds,
            prepare=self._learn_keys,
        )

    def likely(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Return the keys the file may hold; all of them until its keys have been read."""
        if self._off:
            return ()
        if not self._learned:
            return keys
        return [key for key in keys if self._filter.may_hold(key)]

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """Return what is held of ``keys``, written or about to be."""
        if self._off or self._behind is None:
            return {}
        found = self._behind.waiting(keys)
        rows: list[tuple[int, bytes, bytes]] = []
        try:
            rows = self._file.read([key for key in keys if key not in found])
        except sqlite3.Error as error:
            self._failed(error)
        sound, broken = unpack_all((key, entry) for _, key, entry in rows)
        old = {key: sound[key] for n, key, _ in rows if n < self._renew_below and key in sound}
        if old:
            self._behind.add(old)
        found |= sound
        with self._counting:
            self._errors += broken
            self._hits += len(found)
            self._misses += len(keys) - len(found)
        return found

    def put_many(self, items: Mapping[bytes, CachedVector]) -> None:
        """Hand ``items`` to the writer; returns at once."""
        if not self._off and self._behind is not None:
            self._filter.add(items)
            self._behind.add(items)

    def stats(self) -> CacheStats:
        """Return what the file holds as of the last write, and what was asked so far."""
        with self._counting:
            return CacheStats(
                tier="sqlite",
                on=not self._off,
                reason=self._off,
                entries=self._entries,
                bytes=self._bytes,
                limit_bytes=self._limit,
                hits=self._hits,
                misses=self._misses,
                evicted=self._evicted,
                dropped=self._behind.dropped if self._behind else 0,
                errors=self._errors,
            )

    def close(self) -> None:
        """Write what waits, then close the file. Later calls do nothing."""
        if self._behind is None:
            return
        ended = self._behind.close()
        self._off = self._off or "closed"
        if ended:
            self._file.close()
        else:
            self._file.close_reader()

    def _write(self, items: Mapping[bytes, CachedVector]) -> None:
        if self._off:
            return
        try:
            grew = self._file.write([(key, pack(key, vector)) for key, vector in items.items()])
            evicted = self._file.shrink(self._limit)
            with self._counting:
                self._entries += grew - evicted
                self._evicted += evicted
            self._look_at_size()
        except sqlite3.Error as error:
            self._failed(error)
        if self._filter.added > 2 * self._filter.capacity:
            self._learn_keys()

    def _learn_keys(self) -> None:
        """Read every key into a new filter; on the writer's thread, unknown keys pass meanwhile."""
        self._learned = False
        self._filter = KeyFilter(self._limit // SMALL_ENTRY)
        count = 0
        try:
            for block in self._file.key_blocks():
                self._filter.add_block(block)
                count += len(block)
            self._look_at_size()
        except sqlite3.Error as error:
            self._failed(error)
            return
        with self._counting:
            self._entries = count
        self._learned = True

    def _look_at_size(self) -> None:
        used = self._file.used()
        self._renew_below = self._file.middle() if used > self._limit // 2 else 0
        with self._counting:
            self._bytes = used

    def _failed(self, error: sqlite3.Error) -> None:
        """Count a failure; say each kind once, and turn off where it will not go away."""
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        with self._counting:
            self._errors += 1
        if code in _FATAL:
            self._turn_off(str(error))
        elif code not in self._warned:
            self._warned.add(code)
            _log.warning("the embedding cache %s failed: %s", self.path, error)

    def _turn_off(self, reason: str) -> None:
        if not self._off:
            self._off = reason
            _log.warning(
                "the embedding cache in %s is off: %s. It holds nothing that is not made anew: "
                "stop ondol and delete the file",
                self.path,
                reason,
            )


class EmbeddingFile:
    """The file at ``path``, created with its folder where absent, readable by its owner only.

    One table of ``(id, key, entry)``; ids only grow, so the lowest is what was written longest ago.
    One connection reads, one writes. Knows no vector; raises ``sqlite3.Error``, ``OSError`` and
    ``NotOurs``.

    ``read`` may be called from any thread; everything else from one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        private_file(path)
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
            with _transaction(self._writer):
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
            with _transaction(self._writer):
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
        with _transaction(connection):
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


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """``BEGIN IMMEDIATE`` … ``COMMIT``, rolled back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class KeyFilter:
    """Which keys a file may hold: a Bloom filter for ``capacity`` keys of 32 uniformly distributed bytes.

    Says "no" only for keys that were never added; "maybe" is wrong for about 1 key in 400 when as full
    as it was made for. The digest's own bytes are the hash functions. Thread-safe.
    Source: Bloom 1970, https://doi.org/10.1145/362686.362692
    """

    def __init__(self, capacity: int) -> None:
        bits = 1 << max(13, (max(1, capacity) * BITS_PER_KEY - 1).bit_length())
        self.capacity = bits // BITS_PER_KEY
        self._bits = bytearray(bits // 8)
        self._mask = bits - 1
        self._lock = threading.Lock()
        self.added = 0

    def may_hold(self, key: bytes) -> bool:
        """Whether ``key`` may have been added."""
        bits, mask = self._bits, self._mask
        for probe in _PROBES.unpack(key):
            place = probe & mask
            if not bits[place >> 3] >> (place & 7) & 1:
                return False
        return True

    def add(self, keys: Iterable[bytes]) -> None:
        """Add ``keys``."""
        bits, mask = self._bits, self._mask
        with self._lock:
            for key in keys:
                for probe in _PROBES.unpack(key):
                    place = probe & mask
                    bits[place >> 3] |= 1 << (place & 7)
                self.added += 1

    def add_block(self, keys: Sequence[bytes]) -> None:
        """Add many keys at once."""
        probes = np.frombuffer(b"".join(keys), dtype="<u8") & np.uint64(self._mask)
        places = (probes >> np.uint64(3)).astype(np.int64)
        flags = np.left_shift(1, (probes & np.uint64(7)).astype(np.uint8)).astype(np.uint8)
        with self._lock:
            np.bitwise_or.at(np.frombuffer(self._bits, dtype=np.uint8), places, flags)
            self.added += len(keys)

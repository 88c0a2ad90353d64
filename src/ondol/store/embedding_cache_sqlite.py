"""The embedding cache in a SQLite file of its own: survives a restart, bounded in bytes.

Reading never waits for writing, a key that is not there is known without touching the disk
(``KeyFilter``), and writing is one thread's work. A file that is damaged, locked or not ours turns
the cache off with a warning and is left as it was; losing the file loses nothing but time.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ondol.store.embedding_cache import CachedVector, CacheStats, pack, unpack_all
from ondol.store.embedding_file import EmbeddingFile, NotOurs
from ondol.store.key_filter import KeyFilter
from ondol.store.write_behind import WriteBehind

_log = logging.getLogger("ondol.embedding_cache")

WAITING_BYTES = 16 * 2**20
SMALL_ENTRY = 1024
"""Bytes of a small entry (256 dimensions); the filter is made for a file full of them."""

_FATAL = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}


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

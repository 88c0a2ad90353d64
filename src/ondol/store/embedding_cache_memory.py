"""The embedding cache in memory: least recently used, bounded in bytes.

A look-up takes about a microsecond and never waits, so it may run on the event loop.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from ondol.store.embedding_cache import CachedVector, CacheStats

ENTRY_BYTES = 384
"""What an entry costs beside its numbers: key, row header, record, dictionary; tracemalloc says 332."""


class MemoryEmbeddingCache:
    """Holds at most ``limit_bytes``, the objects around the numbers included."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, CachedVector] = OrderedDict()
        self._bytes = 0
        self._hits = self._misses = self._evicted = 0

    def likely(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Return ``keys``: asking costs nothing."""
        return keys

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """Return what is held of ``keys``; it is now the most recently used."""
        found: dict[bytes, CachedVector] = {}
        entries = self._entries
        with self._lock:
            for key in keys:
                vector = entries.get(key)
                if vector is not None:
                    entries.move_to_end(key)
                    found[key] = vector
            self._hits += len(found)
            self._misses += len(keys) - len(found)
        return found

    def put_many(self, items: Mapping[bytes, CachedVector]) -> None:
        """Hold ``items``; what was used longest ago goes where they do not fit."""
        with self._lock:
            for key, vector in items.items():
                old = self._entries.pop(key, None)
                if old is not None:
                    self._bytes -= _cost(old)
                self._entries[key] = vector
                self._bytes += _cost(vector)
            while self._bytes > self._limit:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= _cost(oldest)
                self._evicted += 1

    def stats(self) -> CacheStats:
        """Return what is held now and what was asked so far."""
        with self._lock:
            return CacheStats(
                tier="memory",
                entries=len(self._entries),
                bytes=self._bytes,
                limit_bytes=self._limit,
                hits=self._hits,
                misses=self._misses,
                evicted=self._evicted,
            )

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _cost(vector: CachedVector) -> int:
    return vector.row.nbytes + ENTRY_BYTES

"""The memory tier of the embedding cache, and what every tier is: vectors by the hash of what produced them.

Owns the contract of a tier, its statistics, the bytes of an entry, and the queue through which a
durable tier is written later. A tier never raises and never answers wrongly: what cannot be read,
written or verified is a miss. Knows no model and no text.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger("ondol.embedding_cache")

KEY_BYTES = 32
ENTRY_BYTES = 384
"""What an entry costs beside its numbers: key, row header, record, dictionary; tracemalloc says 332."""

CLOSE_SECONDS = 5.0
_MAGIC = b"OEC1"
_HEAD = struct.Struct("<4sIII")

CacheTier = Literal["memory", "sqlite", "redis"]


@dataclass(frozen=True, slots=True)
class CachedVector:
    """A float32 row exactly as the encoder gave it (read-only), and the tokens it was read from."""

    row: NDArray[np.float32]
    tokens: int


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What one tier holds and has done since it was opened.

    ``on`` is False where it cannot be used now, with the reason. ``evicted`` counts entries that had
    to go, ``dropped`` those never written because too much was waiting, ``errors`` failed reads and
    writes. ``entries`` and ``bytes`` are 0 where the tier does not know them (Redis).
    """

    tier: CacheTier
    on: bool = True
    reason: str = ""
    entries: int = 0
    bytes: int = 0
    limit_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evicted: int = 0
    dropped: int = 0
    errors: int = 0


class EmbeddingCache(Protocol):
    """Vectors by key (``KEY_BYTES`` of SHA-256). Thread-safe; no method raises.

    ``likely`` returns the keys worth asking for and never waits; a key it leaves out is a miss.
    ``get_many`` returns what is held and may wait for disk or network, within a bound. ``put_many``
    hands over and never waits: a durable tier writes later, on a thread of its own, and what
    ``get_many`` is asked for meanwhile is answered. ``close`` writes what still waits, within a bound.
    """

    def likely(self, keys: Sequence[bytes]) -> Sequence[bytes]: ...
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]: ...
    def put_many(self, items: Mapping[bytes, CachedVector]) -> None: ...
    def stats(self) -> CacheStats: ...
    def close(self) -> None: ...


def frozen_vector(row: NDArray[np.float32], tokens: int) -> CachedVector:
    """Return a copy of ``row`` that nobody can write to and that holds no batch matrix alive."""
    own = np.array(row, dtype=np.float32)
    own.flags.writeable = False
    return CachedVector(row=own, tokens=tokens)


def pack(key: bytes, vector: CachedVector) -> bytes:
    """Return an entry's bytes: magic, tokens, dimensions, CRC-32, little-endian float32."""
    body = vector.row.astype("<f4", copy=False).tobytes()
    size = len(body) // 4
    return _HEAD.pack(_MAGIC, vector.tokens, size, _checksum(key, vector.tokens, body)) + body


def unpack(key: bytes, data: bytes) -> CachedVector | None:
    """Return the entry, or ``None`` where the bytes are not what was packed under ``key``."""
    if len(data) < _HEAD.size:
        return None
    magic, tokens, size, checksum = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if magic != _MAGIC or len(body) != 4 * size or checksum != _checksum(key, tokens, body):
        return None
    row: NDArray[np.float32] = np.frombuffer(body, dtype="<f4").astype(np.float32, copy=False)
    return CachedVector(row=row, tokens=tokens)


def unpack_all(
    rows: Iterable[tuple[bytes, bytes]],
) -> tuple[dict[bytes, CachedVector], int]:
    """Unpack ``(key, bytes)`` rows; return the sound ones and how many were not."""
    found: dict[bytes, CachedVector] = {}
    broken = 0
    for key, data in rows:
        vector = unpack(key, data)
        if vector is None:
            broken += 1
        else:
            found[key] = vector
    return found, broken


def _checksum(key: bytes, tokens: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(tokens.to_bytes(4, "little"), zlib.crc32(key)))


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


class WriteBehind:
    """Vectors on their way to a durable tier: one thread calls ``prepare`` once, then ``write``.

    Bounded in bytes; what does not fit is dropped and counted, never waited for. What waits can be
    read. A ``write`` that fails is logged.

    A group is gathered for at most ``gather_seconds``, or until it is a quarter of ``limit_bytes``:
    one transaction for many requests.
    """

    def __init__(
        self,
        write: Callable[[Mapping[bytes, CachedVector]], None],
        *,
        name: str,
        limit_bytes: int,
        gather_seconds: float,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._write = write
        self._prepare = prepare
        self._limit = limit_bytes
        self._gather = gather_seconds
        self._changed = threading.Condition()
        self._waiting: dict[bytes, CachedVector] = {}
        self._writing: dict[bytes, CachedVector] = {}
        self._bytes = 0
        self._closing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._work, name=f"ondol-{name}", daemon=True)
        self._thread.start()

    def add(self, items: Mapping[bytes, CachedVector]) -> None:
        """Hand ``items`` over; returns at once."""
        with self._changed:
            first = not self._waiting
            for key, vector in items.items():
                old = self._waiting.pop(key, None)
                if old is not None:
                    self._bytes -= old.row.nbytes
                if self._closing or self._bytes + vector.row.nbytes > self._limit:
                    self.dropped += 1
                    continue
                self._waiting[key] = vector
                self._bytes += vector.row.nbytes
            if first or self._full():
                self._changed.notify()

    def waiting(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """Return what of ``keys`` is not written yet."""
        with self._changed:
            both = {**self._writing, **self._waiting} if self._writing else self._waiting
            return {key: both[key] for key in keys if key in both}

    def close(self) -> bool:
        """Write what waits and end the thread; returns whether it ended within ``CLOSE_SECONDS``."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _full(self) -> bool:
        return self._bytes * 4 >= self._limit

    def _work(self) -> None:
        try:
            if self._prepare is not None:
                self._prepare()
        except Exception:
            _log.exception("the embedding cache could not be prepared")
        while (group := self._take()) is not None:
            try:
                self._write(group)
            except Exception:
                _log.exception("%d vectors were not cached", len(group))
            with self._changed:
                self._writing = {}

    def _take(self) -> dict[bytes, CachedVector] | None:
        """Return the next group, or ``None`` when closed and nothing is left."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if self._gather and not self._full() and not self._closing:
                self._changed.wait_for(lambda: self._full() or self._closing, self._gather)
            if not self._waiting:
                return None
            self._writing, self._waiting, self._bytes = self._waiting, {}, 0
            return self._writing

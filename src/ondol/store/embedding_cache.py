"""What every embedding cache is: vectors by the hash of what produced them, kept exactly.

Owns the contract, the statistics and the bytes of an entry. A cache never raises and never answers
wrongly: what cannot be read, written or verified is a miss. Knows no model, text or tier.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 32
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

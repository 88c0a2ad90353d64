"""Which keys a file may hold, told without touching the file: a Bloom filter over digests.

Says "no" only for keys that were never added; "maybe" is wrong for about 1 key in 400 when as full
as it was made for. The digest's own bytes are the hash functions. Thread-safe.
Source: Bloom 1970, https://doi.org/10.1145/362686.362692
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Sequence

import numpy as np

BITS_PER_KEY = 16
_PROBES = struct.Struct("<4Q")


class KeyFilter:
    """A filter made for ``capacity`` keys of 32 uniformly distributed bytes."""

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

"""Vectors on their way to a slow store: handed over at once, written later by one thread.

Bounded in bytes; what does not fit is dropped and counted, never waited for. What waits can be
read. Knows no store: ``write`` puts a group away and may fail, which is logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from ondol.store.embedding_cache import CachedVector

_log = logging.getLogger("ondol.embedding_cache")

Write = Callable[[Mapping[bytes, CachedVector]], None]
CLOSE_SECONDS = 5.0


class WriteBehind:
    """One thread that calls ``prepare`` once, then ``write`` with what has come in.

    A group is gathered for at most ``gather_seconds``, or until it is a quarter of ``limit_bytes``:
    one transaction for many requests.
    """

    def __init__(
        self,
        write: Write,
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

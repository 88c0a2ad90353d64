"""Carries events from one worker thread to one coroutine, at most ``size`` ahead.

The thread blocks while the reader is behind, so a slow client costs no memory; ``stop`` frees it.
An error always gets through. Knows nothing of generation.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Relay(Generic[T]):
    """A bounded hand-off: ``put`` in a thread, ``get`` on the loop that built it."""

    def __init__(self, *, size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._room = threading.Condition()
        self._ahead = 0
        self._stopped = False
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._ready = asyncio.Event()

    def put(self, item: T) -> bool:
        """From the thread: hand over ``item``, waiting for room; ``False`` once nobody reads."""
        with self._room:
            while self._ahead >= self._size and not self._stopped:
                self._room.wait()
            if self._stopped:
                return False
            self._ahead += 1
        try:
            self._loop.call_soon_threadsafe(self._arrive, item)
        except RuntimeError:  # the loop has closed: nobody will read
            return False
        return True

    def end(self, error: BaseException | None = None) -> None:
        """From the loop: no more items; ``get`` raises ``error`` after those that arrived."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._ready.set()

    def stop(self) -> None:
        """From any thread: let a blocked ``put`` go; what is put later is dropped."""
        with self._room:
            self._stopped = True
            self._room.notify_all()

    async def get(self) -> T | None:
        """Return the next item, ``None`` at the end; raises what ``end`` was given."""
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._ready.clear()
            await self._ready.wait()
        item = self._items.popleft()
        with self._room:
            self._ahead -= 1
            self._room.notify()
        return item

    def _arrive(self, item: T) -> None:
        if not self._ended:
            self._items.append(item)
            self._ready.set()

"""Looking at something again and again without making anybody wait.

Each look runs in a thread; what it found is handed over on the event loop, and only then is the next
one due. A look that is slow delays the next look and nothing else; one that fails is logged once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ondol.core.timers import Timer, Timers

T = TypeVar("T")

_log = logging.getLogger("ondol.sampling")


class Sampler(Generic[T]):
    """Calls ``read`` in a thread every ``seconds`` and awaits ``found`` with its result.

    The first look is due at once. Not thread-safe: start and close it on the loop that runs it.
    """

    def __init__(
        self,
        read: Callable[[], T],
        found: Callable[[T], Awaitable[None]],
        *,
        seconds: float,
        timers: Timers,
        name: str,
    ) -> None:
        self._read = read
        self._found = found
        self._seconds = seconds
        self._timers = timers
        self._name = name
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None
        self._failing = False
        self._closed = False

    def start(self) -> None:
        """Begin with a look now. Later calls do nothing."""
        if self._looking is None and self._timer is None and not self._closed:
            self._ring()

    async def look(self) -> None:
        """Take one look and hand over what it found; a failure is logged, not raised."""
        try:
            await self._found(await asyncio.to_thread(self._read))
            self._failing = False
        except Exception:
            if not self._failing:
                _log.exception("%s could not look; it goes on trying", self._name)
            self._failing = True

    async def close(self) -> None:
        """Look no more; does not wait for a look that hangs in its thread."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None and self._looking is not asyncio.current_task():
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _ring(self) -> None:
        self._timer = None
        if not self._closed:
            self._looking = asyncio.get_running_loop().create_task(self._turn(), name=self._name)

    async def _turn(self) -> None:
        await self.look()
        if not self._closed:
            self._timer = self._timers.after(self._seconds, self._ring)

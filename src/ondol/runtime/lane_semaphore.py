"""Places of one lane for work that no generator does: so many at once, so many waiting.

First come, first served: such work is short, and its size hardly differs. A full queue and a wait
beyond the lane's limit are refusals with the time to come back. Event loop only.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ondol.core.clock import Clock
from ondol.core.errors import Overloaded
from ondol.core.events import Timing
from ondol.core.lane_state import LaneSnapshot
from ondol.core.settings.lane_sections import LaneSettings
from ondol.runtime.generation import refusals
from ondol.runtime.rate_meter import RateMeter

_JITTER = 0.25


class LaneSemaphore:
    """The places of the lane ``name``."""

    def __init__(self, name: str, settings: LaneSettings, *, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._pace = RateMeter(clock)
        self._running = 0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._rejected: Counter[str] = Counter()

    @asynccontextmanager
    async def hold(self, timing: Timing | None = None) -> AsyncIterator[None]:
        """Hold a place for a block; raises ``Overloaded``. ``timing`` gains the wait."""
        before = self._clock.monotonic()
        try:
            await self._enter()
        except Overloaded as refused:
            self._rejected[refused.code] += 1
            raise
        started = self._clock.monotonic()
        if timing is not None:
            timing.queue_ms += (started - before) * 1e3
        try:
            yield
        finally:
            self._pace.finished(self._name, seconds=self._clock.monotonic() - started)
            self._leave()

    def snapshot(self) -> LaneSnapshot:
        """Return what waits and runs now."""
        now = self._clock.monotonic()
        waiting = [at for at, place in self._waiting if not place.done()]
        full = self._running >= self._settings.running
        ahead = len(waiting) + 1 if full else 0
        wait = ahead * self._pace.service_seconds / self._settings.running
        return LaneSnapshot(
            depth=len(waiting),
            running=self._running,
            queue=self._settings.queue,
            limit=self._settings.running,
            oldest_seconds=now - waiting[0] if waiting else 0.0,
            wait_seconds=wait,
            retry_after=max(1.0, wait),
            rejected=dict(self._rejected),
        )

    async def _enter(self) -> None:
        if self._running < self._settings.running and not self._waiting:
            self._running += 1
            return
        waiting = sum(not place.done() for _, place in self._waiting)
        if waiting >= self._settings.queue:
            raise refusals.lane_full(
                self._name,
                waiting=waiting,
                limit=self._settings.queue,
                retry_after=self._retry_after(),
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._clock.monotonic(), place)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                await place
        except BaseException as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif place.done() and not place.cancelled():
                self._leave()
            if isinstance(error, TimeoutError):
                limit = self._settings.queue_seconds
                raise refusals.waited_out(
                    self._name, seconds=limit, retry_after=self._retry_after()
                ) from None
            raise

    def _leave(self) -> None:
        """Hand the place to the next, or give it back."""
        while self._waiting:
            _, place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._running -= 1

    def _retry_after(self) -> float:
        seconds = self._pace.seconds_for(1, lane=self._name)
        return max(1.0, seconds) * (1.0 + _JITTER * random.random())

"""One model in service: loaded once however many ask, swapped and unloaded under way, released.

Owns whatever serves now (a ``Service``) and what becomes of it. Requests ``use`` it and keep nothing
between two: a reload swaps it between requests and lets the old one end what it has; an idle one
goes, and the next request loads it again. Knows no model, no queue and no settings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import NotReady
from ondol.core.events import ModelStateChanged, NullObserver, Observer
from ondol.core.process import trim
from ondol.core.timers import LoopTimers, Timer, Timers

_log = logging.getLogger("ondol.slot")

FIRST_BACK_OFF = 1.0
"""Seconds after the first failed load before a request tries again; each further failure doubles it."""

LONGEST_BACK_OFF = 60.0


class SlotState(StrEnum):
    """``cold`` has nothing loaded and loads when asked; ``draining`` is on its way out for good."""

    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


class Service(Protocol):
    """What a slot holds: the asynchronous front of one loaded model, which owns that model.

    ``close`` admits nothing more, lets what was admitted end within ``drain_seconds``, fails the
    rest and releases the model; a second call may come while the first still drains.
    """

    async def close(self, drain_seconds: float = 0.0) -> None: ...


S = TypeVar("S", bound=Service)

Load = Callable[[], Awaitable[S]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLimits:
    """``wait_seconds`` is how long a request waits for a load, ``drain_seconds`` how long a swapped
    model may take to end what it has; after ``keep_alive`` idle seconds it goes (0: never)."""

    wait_seconds: float = 60.0
    drain_seconds: float = 60.0
    keep_alive: float = 0.0


class Slot(Generic[S]):
    """Holds what ``load`` makes; ``name`` is the model in messages and events. One event loop."""

    def __init__(
        self,
        load: Load[S],
        *,
        name: str,
        limits: SlotLimits | None = None,
        clock: Clock | None = None,
        timers: Timers | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self.state = SlotState.COLD
        self.failure: Exception | None = None
        """Why the last load failed; ``None`` once one has succeeded."""
        self.loads = 0
        self.users = 0
        """Requests inside, those that wait for a load included."""
        self._load = load
        self._limits = limits or SlotLimits()
        self._clock = clock or SystemClock()
        self._timers = timers or LoopTimers()
        self._observer = observer or NullObserver()
        self._service: S | None = None
        self._loading: asyncio.Task[None] | None = None
        self._change = asyncio.Lock()
        self._retiring: set[S] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._alarm: Timer | None = None
        self._used_at = self._clock.monotonic()
        self._failures = 0
        self._failed_at = 0.0

    @property
    def cold(self) -> bool:
        """Whether nothing is loaded; the next request loads it."""
        return self._service is None

    @property
    def retiring(self) -> int:
        """How many that were swapped out still end what they have."""
        return len(self._retiring)

    @property
    def idle_seconds(self) -> float:
        return 0.0 if self.users else self._clock.monotonic() - self._used_at

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[S, None]:
        """Yield what serves now, loading it first where nothing does.

        Ask it for admission before anything else is awaited: then a swap finds the request either
        admitted by the old one or bound for the new. Raises ``NotReady`` when it cannot be loaded,
        is not loaded in time, or the slot is closed.
        """
        self.users += 1
        try:
            while (service := self._service) is None:
                await self._wait_for_load()
            yield service
        finally:
            self.users -= 1
            self._note_use()

    async def load(self) -> None:
        """Load now, or join the load that runs; raises what loading raises."""
        if self._service is None:
            await asyncio.shield(self._load_task())

    async def reload(self, load: Load[S] | None = None) -> None:
        """Load anew (by ``load``, kept from then on) beside what runs, then swap.

        The old one ends what it has admitted and is then released. Raises what loading raises; then
        the old one goes on.
        """
        await asyncio.shield(self._background(self._replace(load or self._load)))

    async def unload(self) -> bool:
        """Release the model if no request is in it; returns whether it did."""
        async with self._change:
            service = self._service
            if service is None or self.users or self.state is SlotState.DRAINING:
                return False
            self._service, self.state = None, SlotState.COLD
            await service.close()
            del service
            await asyncio.to_thread(trim)
        self._report(reason="idle")
        return True

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Refuse new work, let what was admitted end within ``drain_seconds``, release everything.

        A load that runs is waited for, so that nothing is left behind.
        """
        self.state = SlotState.DRAINING
        if self._alarm is not None:
            self._alarm.cancel()
        async with self._change:
            self._retire(drain_seconds)
        await asyncio.gather(*(service.close(drain_seconds) for service in self._retiring))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait_for_load(self) -> None:
        """Wait for the one load, starting it where none runs; its error is this request's."""
        self._require_open()
        if self.state is SlotState.FAILED and self.failure is not None:
            left = self._failed_at + self._back_off() - self._clock.monotonic()
            if left > 0:
                raise self._unloadable(self.failure, retry_after=left)
        task = self._load_task()
        seconds = self._limits.wait_seconds
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            raise NotReady(
                f"{self.name} was not loaded within {seconds:g} s",
                retry_after=5,
                hint="it goes on loading; try again",
            )
        error = task.exception()
        if error is not None:
            raise self._unloadable(error, retry_after=self._back_off()) from error

    def _require_open(self) -> None:
        if self.state is SlotState.DRAINING:
            raise NotReady(f"{self.name} is being closed", retry_after=5, hint="try again shortly")

    def _unloadable(self, error: BaseException, *, retry_after: float) -> NotReady:
        return NotReady(
            f"{self.name} could not be loaded: {error}",
            retry_after=retry_after,
            hint=getattr(error, "hint", "") or "see the server's log",
        )

    def _back_off(self) -> float:
        """Return the seconds after the last failure before a request tries again: 1, 2, 4, … 60."""
        doublings = min(max(0, self._failures - 1), 10)
        return min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2.0**doublings)

    def _load_task(self) -> asyncio.Task[None]:
        if self._loading is None or self._loading.done():
            self._loading = self._background(self._replace(only_if_cold=True))
        return self._loading

    async def _replace(self, load: Load[S] | None = None, *, only_if_cold: bool = False) -> None:
        load = load or self._load
        async with self._change:
            if only_if_cold and self._service is not None:
                return
            self._require_open()
            if self._service is None:
                self.state = SlotState.LOADING
            started = self._clock.monotonic()
            try:
                service = await load()
            except Exception as error:
                self._note_failure(error)
                raise
            if self.state is SlotState.DRAINING:
                await service.close()
                raise NotReady(f"{self.name} was closed while it loaded", retry_after=5)
            self._load = load
            self._retire(self._limits.drain_seconds)
            self._service, self.state = service, SlotState.READY
            self._failures, self.failure = 0, None
            self.loads += 1
            self._report(seconds=self._clock.monotonic() - started)
            self._note_use()

    def _note_failure(self, error: Exception) -> None:
        self.failure = error
        if self.state is SlotState.LOADING:
            self._failures += 1
            self._failed_at = self._clock.monotonic()
            self.state = SlotState.FAILED
        self._report(reason=str(error))

    def _retire(self, drain_seconds: float) -> None:
        """Let what serves end what it has, out of sight of new requests."""
        service, self._service = self._service, None
        if service is not None:
            self._retiring.add(service)
            self._background(self._released(service, drain_seconds))

    async def _released(self, service: S, drain_seconds: float) -> None:
        try:
            await service.close(drain_seconds)
        finally:
            self._retiring.discard(service)
            del service
            await asyncio.to_thread(trim)

    def _note_use(self) -> None:
        """Note that the model was used; the alarm looks at the note when it rings."""
        self._used_at = self._clock.monotonic()
        if self._limits.keep_alive and self._alarm is None and self.state is SlotState.READY:
            self._alarm = self._timers.after(self._limits.keep_alive, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self.state is not SlotState.READY:
            return
        keep_alive = self._limits.keep_alive
        left = self._used_at + keep_alive - self._clock.monotonic()
        if self.users or left > 0:
            self._alarm = self._timers.after(left if left > 0 else keep_alive, self._ring)
            return
        _log.info("%s was idle for %g s and is unloaded", self.name, keep_alive)
        self._background(self.unload())

    def _background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` as a task that nobody needs to wait for; its error is told to who does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def _report(self, *, reason: str = "", seconds: float = 0.0) -> None:
        self._observer.observe(
            ModelStateChanged(model=self.name, state=self.state, reason=reason, seconds=seconds)
        )

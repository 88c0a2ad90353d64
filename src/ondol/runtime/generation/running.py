"""One generation while it runs, and the account of one request from its arrival to its end.

A ``GenerationRun`` owns the switch that stops the backend, the events on their way to the caller, and the
limits that may end it. Knows no queue.

Carries events from one worker thread to one coroutine, at most ``size`` ahead.

The thread blocks while the reader is behind, so a slow client costs no memory; ``stop`` frees it.
An error always gets through. Knows nothing of generation.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from ondol.core.cancel import CancelToken
from ondol.core.errors import DeadlineExceeded, OndolError
from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.types import GenerationEvent, GenerationRequest, Usage
from ondol.runtime.generation.lane_queue import QueuedRequest

T = TypeVar("T")


class EventRelay(Generic[T]):
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


RELAY_EVENTS = 64


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """From when a request runs, the longest wait for the first token, and for all of it."""

    first_token_seconds: float = 120.0
    total_seconds: float = 300.0


@dataclass(slots=True)
class RequestAccount:
    """What one request cost so far; settled exactly once."""

    terms: RequestTerms
    timing: Timing
    arrived: float
    promise_ms: float | None
    ticket: QueuedRequest | None = None
    predicted_ms: float | None = None
    usage: Usage = field(default_factory=Usage)
    has_output: bool = False
    settled: bool = False


class GenerationRun:
    """One generation in its thread: its switch, its events, and the limits that may end it."""

    def __init__(
        self, request: GenerationRequest, ticket: QueuedRequest, limits: GenerationLimits
    ) -> None:
        self.request = request
        self.ticket = ticket
        self.times: list[float] = []
        self.company = 0
        self.cancel = CancelToken()
        self.relay: EventRelay[GenerationEvent] = EventRelay(size=RELAY_EVENTS)
        loop = asyncio.get_running_loop()
        self._first = loop.call_later(
            limits.first_token_seconds,
            self._expire,
            "first_token",
            limits.first_token_seconds,
        )
        self._total = loop.call_later(
            limits.total_seconds, self._expire, "total", limits.total_seconds
        )

    def saw_output(self) -> None:
        self._first.cancel()

    def finish(self) -> None:
        """No limit applies any more."""
        self._first.cancel()
        self._total.cancel()

    def abort(self, error: OndolError) -> None:
        """End the stream with ``error`` and stop the backend."""
        self.finish()
        self.relay.end(error)
        self.leave()

    def leave(self) -> None:
        """The caller is gone: stop the backend and drop what it still yields."""
        self.finish()
        self.relay.stop()
        self.cancel.cancel()

    def write_pace(self, timing: Timing) -> None:
        """Write the pace of tokens: mean time per output token, and the gaps between them."""
        if len(self.times) < 2:
            return
        gaps = np.diff(self.times) * 1e3
        timing.tpot_ms = float(gaps.mean())
        timing.itl_p50_ms, timing.itl_p99_ms = (float(q) for q in np.quantile(gaps, (0.5, 0.99)))

    def _expire(self, name: str, seconds: float) -> None:
        self.abort(
            DeadlineExceeded(
                f"the generation ran into its {name.replace('_', ' ')} limit of {seconds:g} s",
                hint=f"ask for less, or raise generation.{name}_seconds",
                code=f"{name}_deadline_exceeded",
            )
        )

"""A bounded queue in front of a fixed number of slots, on one event loop.

Owns who waits, who runs, and the measured drain rate. Admits before work: a full queue refuses
with the time to come back. The policy decides who is next; this only asks it. Knows no backend,
no thread and no event. Not thread-safe: every method is called on the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ondol.core.clock import Clock
from ondol.core.errors import NotReady, Overloaded
from ondol.engine.lane import LaneSnapshot
from ondol.engine.policy import NextIndex, Waiting, next_index

_UNMEASURED_RETRY_SECONDS = 5.0
_FORESIGHT = 0.6  # share of the longest wait that may be foreseen: the estimate errs
_SMOOTHING = 0.2
_RECHECK_SECONDS = 0.2


@dataclass(slots=True)
class _Ticket:
    waiting: Waiting
    granted: asyncio.Future[None]


class SlotQueue:
    """Hands ``slots`` out to at most ``queue`` waiting requests.

    ``may_run`` is asked before each grant; while it says no the queue is held and asked again
    shortly, so that what was admitted survives a restart of the backend. Each request still waits
    at most ``queue_seconds``.
    """

    def __init__(
        self,
        *,
        name: str,
        slots: int,
        queue: int,
        queue_seconds: float,
        clock: Clock,
        may_run: Callable[[], bool],
        policy: NextIndex = next_index,
    ) -> None:
        self._name = name
        self._slots = slots
        self._queue = queue
        self._queue_seconds = queue_seconds
        self._clock = clock
        self._may_run = may_run
        self._policy = policy
        self._tickets: list[_Ticket] = []
        self._running = 0
        self._sequence = 0
        self._service_seconds = 0.0
        self._closed = False
        self._recheck: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def acquire(self, *, lane: str, prompt_chars: int = 0, max_tokens: int = 0) -> None:
        """Return once a slot is this caller's; ``release`` gives it back.

        Raises ``Overloaded`` when the queue is full, when the wait would be longer than its limit
        or turns out so, ``NotReady`` once closed. A cancelled caller leaves the queue at once.
        """
        self._admit()
        self._sequence += 1
        waiting = Waiting(
            lane=lane,
            arrived=self._clock.monotonic(),
            sequence=self._sequence,
            prompt_chars=prompt_chars,
            max_tokens=max_tokens,
        )
        ticket = _Ticket(waiting, asyncio.get_running_loop().create_future())
        self._tickets.append(ticket)
        self._idle.clear()
        self._dispatch()
        try:
            async with asyncio.timeout(self._queue_seconds):
                await ticket.granted
        except TimeoutError:
            self._abandon(ticket)
            raise Overloaded(
                f"waited {self._queue_seconds:g} s in the queue of {self._name}, the limit",
                retry_after=self.retry_after(),
                hint="the machine is overloaded: send less at once or raise generation.queue_seconds",
                code="queue_deadline_exceeded",
            ) from None
        except BaseException:
            self._abandon(ticket)
            raise

    def release(self, *, service_seconds: float | None) -> None:
        """Give a slot back; ``service_seconds`` (if it served to the end) feeds the drain rate."""
        self._running -= 1
        if service_seconds is not None:
            past = self._service_seconds
            step = _SMOOTHING if past else 1.0
            self._service_seconds = past + step * (service_seconds - past)
        self._dispatch()
        self._note_idle()

    def close(self) -> None:
        """Admit nothing more; what waits may still run."""
        self._closed = True

    def fail_waiting(self) -> None:
        """End every wait with ``NotReady``."""
        tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            if not ticket.granted.done():
                ticket.granted.set_exception(closing_error())
        self._note_idle()

    async def idle(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()

    def snapshot(self) -> LaneSnapshot:
        now = self._clock.monotonic()
        arrived = [ticket.waiting.arrived for ticket in self._tickets]
        return LaneSnapshot(
            depth=len(self._tickets),
            running=self._running,
            queue=self._queue,
            slots=self._slots,
            oldest_seconds=now - min(arrived) if arrived else 0.0,
            service_seconds=self._service_seconds,
            retry_after=self.retry_after(),
            draining=self._closed,
        )

    def retry_after(self) -> float:
        """Return the seconds until a slot should be free for a newcomer: depth over drain rate."""
        if not self._service_seconds:
            return _UNMEASURED_RETRY_SECONDS
        ahead = len(self._tickets) + 1
        return max(1.0, self._service_seconds * ahead / self._slots)

    def _admit(self) -> None:
        if self._closed:
            raise closing_error()
        if len(self._tickets) >= self._queue:
            raise Overloaded(
                f"{len(self._tickets)} requests wait for {self._name}, the limit is {self._queue}",
                retry_after=self.retry_after(),
                hint="send again after Retry-After seconds, or raise generation.queue",
            )
        foreseen, bearable = self.retry_after(), _FORESIGHT * self._queue_seconds
        if self._service_seconds and self._tickets and foreseen > bearable:
            raise Overloaded(
                f"a slot of {self._name} is about {foreseen:.0f} s away, "
                f"the limit is {self._queue_seconds:g} s",
                retry_after=foreseen - bearable + 1.0,
                hint="send again after Retry-After seconds, or raise generation.queue_seconds",
            )

    def _dispatch(self) -> None:
        while self._tickets and self._running < self._slots:
            if not self._may_run():
                self._check_again_soon()
                return
            views = [ticket.waiting for ticket in self._tickets]
            ticket = self._tickets.pop(self._policy(views, self._clock.monotonic()))
            if not ticket.granted.done():
                ticket.granted.set_result(None)
                self._running += 1

    def _check_again_soon(self) -> None:
        if self._recheck is None:
            loop = asyncio.get_running_loop()
            self._recheck = loop.call_later(_RECHECK_SECONDS, self._checked)

    def _checked(self) -> None:
        self._recheck = None
        self._dispatch()

    def _abandon(self, ticket: _Ticket) -> None:
        """Forget a caller that left: out of the queue, or its unused slot back."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._note_idle()
        elif _was_granted(ticket.granted):
            self.release(service_seconds=None)

    def _note_idle(self) -> None:
        if not self._tickets and not self._running:
            self._idle.set()


def _was_granted(future: asyncio.Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def closing_error() -> NotReady:
    """Return what a request is told while the engine drains."""
    return NotReady(
        "the generator is being closed", retry_after=5.0, hint="send again after Retry-After"
    )

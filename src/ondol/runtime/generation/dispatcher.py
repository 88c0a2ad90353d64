"""Who runs next: the lanes in front of one generator, on one event loop.

Asks admission before work and the policy whenever a slot or the prefill comes free, and never hands
out more than the slots, because the generator's own queue would undo the order. Prefills go one at
a time: two at once would finish together, late. Knows no backend, no thread and no event. Not
thread-safe.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ondol.core.clock import Clock
from ondol.core.errors import Overloaded
from ondol.core.lane_state import QueueSnapshot
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import LANES, LanesSettings
from ondol.core.timers import LoopTimers, Timer, Timers
from ondol.runtime.generation import refusals
from ondol.runtime.generation.admission import Admission
from ondol.runtime.generation.lane_queue import LaneQueue, QueuedRequest, Size
from ondol.runtime.generation.policy import Policy
from ondol.runtime.pressure import Pressure

_RECHECK_SECONDS = 0.2
_REESTIMATED = 32
"""Up to so many waiting are sized anew before a choice."""


class Dispatcher:
    """Hands ``slots`` out to the requests that wait in ``lanes``.

    ``may_run`` is asked before each grant; while it says no the queue is held and asked again
    shortly, so that what was admitted survives a restart of the backend. ``trusted`` and ``step``
    are the cost model's; ``jitter`` returns a number in [0, 1).
    """

    def __init__(
        self,
        *,
        slots: int,
        lanes: LanesSettings,
        policy: Policy,
        clock: Clock,
        may_run: Callable[[], bool],
        trusted: Callable[[], bool],
        step: Callable[[float], float],
        prefills: int = 1,
        timers: Timers | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._queue = LaneQueue(
            slots=slots, prefills=prefills, lanes=lanes, policy=policy, clock=clock, step=step
        )
        self._admission = Admission(self._queue, clock=clock, trusted=trusted, jitter=jitter)
        self._clock = clock
        self._timers = timers or LoopTimers()
        self._may_run = may_run
        self._closed = False
        self._recheck: Timer | None = None
        self._sweeping: Timer | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def closed(self) -> bool:
        return self._closed

    def press(self, pressure: Pressure) -> None:
        """Take over how short of resources the machine is."""
        self._queue.pressure = pressure
        self._dispatch()

    async def acquire(self, size: Size, terms: RequestTerms) -> QueuedRequest:
        """Return the caller's ticket once a slot is its own; ``release`` gives it back.

        Raises ``Overloaded`` (lane full, share used, deadline infeasible or become so, waited too
        long, shed) and ``NotReady`` once closed. A cancelled caller leaves the queue at once.
        """
        if self._closed:
            raise refusals.closing()
        queue = self._queue
        try:
            ticket = self._admission.admit(size, terms)
            queue.add(ticket)
            self._idle.clear()
            limit = queue.lanes.lane(terms.lane).queue_seconds
            ticket.alarm = self._timers.after(limit, lambda: self._wait_out(ticket, limit))
            self._dispatch()
            try:
                await ticket.granted
            except BaseException:
                self._abandon(ticket)
                raise
            finally:
                ticket.alarm.cancel()
        except Overloaded as refused:
            queue.refused(terms.lane, refused.code)
            raise
        return ticket

    def began(self, ticket: QueuedRequest) -> None:
        """Its first token has come: the next prefill may begin."""
        if ticket.reading and ticket in self._queue.running:
            ticket.first_token = self._clock.monotonic()
            self._dispatch()

    def release(self, ticket: QueuedRequest, *, served: bool) -> None:
        """Give a slot back; ``served`` says that it ran to its end."""
        if ticket in self._queue.running:
            self._queue.end(ticket, served=served)
            self._dispatch()
            self._note_idle()

    def interactive(self) -> int:
        """Return how many requests wait or run in lanes other than ``batch``."""
        return self._queue.interactive()

    def others_decoding(self) -> int:
        return self._queue.decoding()

    def close(self) -> None:
        """Admit nothing more; what waits may still run."""
        self._closed = True

    def fail_waiting(self) -> None:
        """End every wait with ``NotReady``."""
        for ticket in list(self._queue.waiting):
            self._fail(ticket, refusals.closing())
        self._note_idle()

    async def idle(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()

    def snapshot(self) -> QueueSnapshot:
        """Return what waits and runs now, lane by lane."""
        queue = self._queue
        return QueueSnapshot(
            depth=len(queue.waiting),
            running=len(queue.running),
            slots=queue.slots,
            open_slots=queue.open_slots,
            service_seconds=queue.pace.service_seconds,
            drain_rate=queue.pace.rate(),
            draining=self._closed,
            lanes={name: queue.snapshot(name) for name in LANES},
        )

    def _dispatch(self) -> None:
        self._refuse_lapsed()
        while self._queue.waiting and self._queue.has_slot():
            if not self._may_run():
                self._check_again_soon()
                break
            ticket = self._next()
            if ticket is None:
                break
            self._queue.start(ticket)
            ticket.granted.set_result(None)
        self._sweep_later()

    def _next(self) -> QueuedRequest | None:
        able = [ticket for ticket in self._queue.able() if not ticket.granted.done()]
        if not able:
            return None
        if len(able) <= _REESTIMATED:
            others = self._queue.decoding()
            for ticket in able:
                self._admission.reestimate(ticket, others=others)
        return self._queue.ordered(able, self._clock.monotonic())[0]

    def _refuse_lapsed(self) -> None:
        """Refuse at this moment what can no longer keep its promise."""
        now = self._clock.monotonic()
        waiting = self._queue.waiting
        views = [ticket.waiting for ticket in waiting]
        for ticket in [waiting[index] for index in self._queue.policy.lapsed(views, now)]:
            item = ticket.waiting
            error = refusals.deadline_lapsed(
                waited=now - item.arrived,
                deadline=(item.deadline or now) - item.arrived,
                retry_after=self._admission.jittered(self._queue.wait_ahead()),
            )
            self._fail(ticket, error)

    def _sweep_later(self) -> None:
        """Come back when the next promise lapses."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        now = self._clock.monotonic()
        lapses = [
            ticket.waiting.deadline - ticket.waiting.prefill
            for ticket in self._queue.waiting
            if ticket.waiting.deadline is not None and ticket.waiting.refusable
        ]
        # What lies behind us this policy does not refuse.
        if due := [at for at in lapses if at >= now]:
            self._sweeping = self._timers.after(min(due) - now + 0.001, self._swept)

    def _swept(self) -> None:
        self._sweeping = None
        self._dispatch()
        self._note_idle()

    def _check_again_soon(self) -> None:
        if self._recheck is None:
            self._recheck = self._timers.after(_RECHECK_SECONDS, self._rechecked)

    def _rechecked(self) -> None:
        self._recheck = None
        self._dispatch()

    def _wait_out(self, ticket: QueuedRequest, limit: float) -> None:
        if ticket in self._queue.waiting:
            retry_after = self._admission.jittered(self._queue.wait_ahead())
            self._fail(
                ticket, refusals.waited_out(ticket.lane, seconds=limit, retry_after=retry_after)
            )
            self._note_idle()

    def _fail(self, ticket: QueuedRequest, error: Exception) -> None:
        self._queue.remove(ticket)
        if not ticket.granted.done():
            ticket.granted.set_exception(error)

    def _abandon(self, ticket: QueuedRequest) -> None:
        """Forget a caller that left: out of the queue, or its unused slot back."""
        if ticket in self._queue.waiting:
            self._queue.remove(ticket)
            self._note_idle()
        else:
            self.release(ticket, served=False)

    def _note_idle(self) -> None:
        if self._queue.empty:
            self._idle.set()

"""Whether a request may wait at all, decided before any work is done for it.

In this order: a place in its lane and in its key's share; its foreseen first token against its
deadline; the machine's resources. What is refused learns the reason and when to come back. Knows no
future and no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from ondol.core.clock import Clock
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import BATCH
from ondol.runtime.generation import refusals
from ondol.runtime.generation.lane_queue import LaneQueue, QueuedRequest, Size
from ondol.runtime.generation.policy import WaitingRequest

_FORESIGHT = 0.6  # share of the longest wait that may be foreseen: the estimate errs
_JITTER = 0.25


class Admission:
    """The checks in front of one ``LaneQueue``.

    ``trusted`` says whether estimates are measured: until then nobody is refused on their strength.
    """

    def __init__(
        self,
        queue: LaneQueue,
        *,
        clock: Clock,
        trusted: Callable[[], bool],
        jitter: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._trusted = trusted
        self._jitter = jitter
        self._sequence = 0

    def admit(self, size: Size, terms: RequestTerms) -> QueuedRequest:
        """Return a ticket, not queued yet; raises ``Overloaded``."""
        self._require_place(terms)
        ticket = self._ticket(size, terms)
        if self._trusted():
            self._require_feasible(ticket)
        self._require_resources(terms.lane)
        return ticket

    def reestimate(self, ticket: QueuedRequest, *, others: int) -> None:
        """Size ``ticket`` anew: caches and company have changed since it came."""
        ticket.estimate = ticket.size(others)
        prefill = ticket.estimate.surest if self._trusted() else 0.0
        ticket.waiting = replace(ticket.waiting, prefill=prefill, work=ticket.estimate.work)

    def jittered(self, seconds: float) -> float:
        """At least a second, and up to a quarter more: those refused together must not return so."""
        return max(1.0, seconds) * (1.0 + _JITTER * self._jitter())

    def _require_place(self, terms: RequestTerms) -> None:
        queue, lane = self._queue, terms.lane
        rules = queue.lanes.lane(lane)
        waiting = queue.depth(lane)
        if waiting >= rules.queue:
            raise refusals.lane_full(
                lane, waiting=waiting, limit=rules.queue, retry_after=self._next_place(lane)
            )
        held = queue.held(lane, terms.tenant)
        allowed = max(1, int(terms.share * (rules.queue + min(rules.running, queue.slots))))
        if terms.share < 1 and held >= allowed:
            raise refusals.share_used(
                lane, held=held, limit=allowed, retry_after=self._next_place(lane)
            )

    def _next_place(self, lane: str) -> float:
        return self.jittered(self._queue.pace.seconds_for(1, lane=lane))

    def _ticket(self, size: Size, terms: RequestTerms) -> QueuedRequest:
        rules = self._queue.lanes.lane(terms.lane)
        now = self._clock.monotonic()
        arrived = now - terms.elapsed_ms / 1e3
        estimate = size(self._queue.decoding())
        promise = terms.deadline_ms or rules.sla_ms or None
        deadline = None if promise is None else arrived + promise / 1e3
        hard = terms.deadline_ms is not None
        if deadline is not None and not hard and self._trusted():
            # A lane cannot promise what the prompt alone makes impossible: such a request waits
            # like one without a deadline, and counts as late.
            deadline = None if now + estimate.surest > deadline else deadline
        self._sequence += 1
        # A lane's own promise refuses nobody who named no deadline while no other waits: whom would
        # the refusal serve?
        return QueuedRequest(
            waiting=WaitingRequest(
                lane=terms.lane,
                arrived=arrived,
                sequence=self._sequence,
                prefill=estimate.surest if self._trusted() else 0.0,
                work=estimate.work,
                deadline=deadline,
                refusable=hard
                or (rules.late == "refuse" and self._trusted() and bool(self._queue.waiting)),
            ),
            terms=terms,
            size=size,
            estimate=estimate,
            granted=asyncio.get_running_loop().create_future(),
            promise_ms=promise,
        )

    def _require_feasible(self, ticket: QueuedRequest) -> None:
        """Refuse what would be late, or would wait longer than its lane allows."""
        now = self._clock.monotonic()
        start = self._queue.start_of(ticket, now)
        item = ticket.waiting
        ticket.predicted_ms = (start + ticket.estimate.prefill - item.arrived) * 1e3
        if item.deadline is not None and item.refusable and self._queue.policy.refuses:
            self._require_in_time(ticket, start, now)
        elif item.deadline is None or not item.refusable:
            self._require_bearable(item.lane, start - now)

    def _require_in_time(self, ticket: QueuedRequest, start: float, now: float) -> None:
        item = ticket.waiting
        deadline = item.deadline or 0.0
        if item.hopeless(now):
            raise refusals.deadline_unreachable(
                prefill=item.prefill, deadline=deadline - item.arrived
            )
        late = start + item.prefill - deadline
        if late > 0:
            raise refusals.deadline_infeasible(
                first_token=start + ticket.estimate.prefill - item.arrived,
                deadline=deadline - item.arrived,
                retry_after=self.jittered(late),
            )

    def _require_bearable(self, lane: str, wait: float) -> None:
        limit = self._queue.lanes.lane(lane).queue_seconds
        bearable = _FORESIGHT * limit
        if wait > bearable:
            raise refusals.wait_foreseen(
                lane, seconds=wait, limit=limit, retry_after=self.jittered(wait - bearable)
            )

    def _require_resources(self, lane: str) -> None:
        pressure = self._queue.pressure
        if pressure.shed and lane == BATCH:
            raise refusals.shed(
                lane,
                reasons=", ".join(pressure.reasons),
                retry_after=self.jittered(pressure.retry_after),
            )

"""The requests that wait and run in the lanes of one generator, and when each would begin.

Owns the tickets, the counts by lane and key, the measured pace and what each lane has had. Foretells
with the policy's order; decides nothing. Not thread-safe.

One request from its admission to its end, as the lanes keep it.

How far each lane is ahead of its share: virtual token counters, in weighted seconds of work.

Serving a lane advances its counter by work over weight; a lane that comes back from idleness starts
level with the least served of those active, so that idling saves nothing up. Source: Sheng et al.,
Fairness in Serving Large Language Models, OSDI 2024.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ondol.core.clock import Clock
from ondol.core.lane_state import LaneSnapshot
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import BATCH, LANES, LanesSettings
from ondol.core.timers import Timer
from ondol.runtime.generation.cost import Estimate
from ondol.runtime.generation.policy import (
    Policy,
    QueueState,
    SlotOccupancy,
    WaitingRequest,
    WorkEstimate,
    starts,
)
from ondol.runtime.pressure import NO_PRESSURE, Pressure
from ondol.runtime.rate_meter import RateMeter

Size = Callable[[int], Estimate]
"""What a request would take if it began beside so many others that decode."""


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """Times are monotonic seconds. ``promise_ms`` is the deadline it is judged by, whoever set it.

    ``produced`` is the number of tokens so far, written by the thread that runs it; ``others`` how
    many decoded when it was ``started``.
    """

    waiting: WaitingRequest
    terms: RequestTerms
    size: Size
    estimate: Estimate
    granted: asyncio.Future[None]
    promise_ms: float | None = None
    predicted_ms: float | None = None
    others: int = 0
    started: float = 0.0
    first_token: float | None = None
    produced: int = 0
    alarm: Timer | None = None

    @property
    def lane(self) -> str:
        return self.waiting.lane

    @property
    def reading(self) -> bool:
        return self.first_token is None


class Fairness:
    """One counter a lane; lanes not named weigh 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._counters: dict[str, float] = {}
        self._active: set[str] = set()

    def served(self, lane: str, work: float, *, active: Collection[str]) -> None:
        """Note that ``lane`` gets ``work`` seconds; ``active`` are the lanes that still wait."""
        self._lift({lane, *active})
        self._counters[lane] += work / self._weights.get(lane, 1.0)
        self._active = set(active)

    def lead(self, lanes: Collection[str]) -> dict[str, float]:
        """Return by how much each of ``lanes`` is ahead of the least served of them."""
        self._lift(lanes)
        least = min((self._counters[lane] for lane in lanes), default=0.0)
        return {lane: self._counters[lane] - least for lane in lanes}

    def _lift(self, lanes: Collection[str]) -> None:
        """Let lanes that were idle start level with the least served of the others."""
        standing = [self._counters[lane] for lane in lanes if lane in self._active]
        floor = min(standing, default=max(self._counters.values(), default=0.0))
        for lane in lanes:
            if lane not in self._active:
                self._counters[lane] = max(self._counters.get(lane, 0.0), floor)
        self._active |= set(lanes)


class LaneQueue:
    """``step`` returns the seconds between two tokens of one request while so many decode."""

    def __init__(
        self,
        *,
        slots: int,
        prefills: int,
        lanes: LanesSettings,
        policy: Policy,
        clock: Clock,
        step: Callable[[float], float],
    ) -> None:
        self.slots = slots
        self.lanes = lanes
        self.policy = policy
        self.pressure: Pressure = NO_PRESSURE
        self.waiting: list[QueuedRequest] = []
        self.running: list[QueuedRequest] = []
        self.pace = RateMeter(clock)
        self._prefills = prefills
        self._clock = clock
        self._step = step
        self._fairness = Fairness({name: lanes.lane(name).weight for name in LANES})
        self._running_in: Counter[str] = Counter()
        self._held: Counter[tuple[str, str]] = Counter()
        self._rejected: dict[str, Counter[str]] = {}
        self._passed_over = 0

    @property
    def open_slots(self) -> int:
        """Slots that may be used now: fewer under pressure, never none."""
        return max(1, int(self.slots * self.pressure.concurrency))

    @property
    def empty(self) -> bool:
        return not (self.waiting or self.running)

    def has_slot(self) -> bool:
        """Whether a slot and a prefill are free."""
        reading = sum(ticket.reading for ticket in self.running)
        return len(self.running) < self.open_slots and reading < self._prefills

    def decoding(self) -> int:
        return sum(not ticket.reading for ticket in self.running)

    def able(self) -> list[QueuedRequest]:
        """Return who waits in a lane that may run another."""
        return [
            ticket
            for ticket in self.waiting
            if self._running_in[ticket.lane] < self.lanes.lane(ticket.lane).running
        ]

    def held(self, lane: str, tenant: str) -> int:
        """Return how many places of ``lane`` this tenant has, waiting and running."""
        return self._held[lane, tenant]

    def interactive(self) -> int:
        """Return how many tickets outside ``batch`` wait and run."""
        return sum(count for (lane, _), count in self._held.items() if lane != BATCH)

    def depth(self, lane: str) -> int:
        return sum(ticket.lane == lane for ticket in self.waiting)

    def add(self, ticket: QueuedRequest) -> None:
        self.waiting.append(ticket)
        self._held[ticket.lane, ticket.terms.tenant] += 1

    def remove(self, ticket: QueuedRequest) -> None:
        """Take out one that waits and will not run."""
        self.waiting.remove(ticket)
        self._forget_place(ticket)

    def start(self, ticket: QueuedRequest) -> None:
        """Move ``ticket`` from the queue into a slot."""
        self.waiting.remove(ticket)
        unpromised = any(other.waiting.deadline is None for other in self.waiting)
        passed = ticket.waiting.deadline is not None and unpromised
        self._passed_over = self._passed_over + 1 if passed else 0
        ticket.others = self.decoding()
        ticket.started = self._clock.monotonic()
        active = {other.lane for other in self.waiting}
        self._fairness.served(ticket.lane, ticket.estimate.work, active=active)
        self.running.append(ticket)
        self._running_in[ticket.lane] += 1

    def end(self, ticket: QueuedRequest, *, served: bool) -> None:
        """Take ``ticket`` out of its slot; ``served`` feeds the drain rate."""
        self.running.remove(ticket)
        self._running_in[ticket.lane] -= 1
        self._forget_place(ticket)
        if served:
            self.pace.finished(ticket.lane, seconds=self._clock.monotonic() - ticket.started)

    def refused(self, lane: str, code: str) -> None:
        self._rejected.setdefault(lane, Counter())[code] += 1

    def moment(self, now: float) -> QueueState:
        lead = self._fairness.lead({ticket.lane for ticket in self.waiting})
        return QueueState(now, lead, self._passed_over)

    def ordered(self, tickets: Sequence[QueuedRequest], now: float) -> list[QueuedRequest]:
        """Return ``tickets`` in the policy's order."""
        order = self.policy.order([ticket.waiting for ticket in tickets], self.moment(now))
        return [tickets[index] for index in order]

    def start_of(self, newcomer: QueuedRequest, now: float) -> float:
        """Return when ``newcomer`` would begin among those who wait now."""
        ordered = self.ordered([*self.waiting, newcomer], now)
        ahead = ordered[: ordered.index(newcomer) + 1]
        return self._starts([_need(ticket) for ticket in ahead], now)[-1]

    def wait_ahead(self) -> float:
        """Return the foreseen wait in seconds of a request that came now and went last."""
        now = self._clock.monotonic()
        needs = [_need(ticket) for ticket in self.ordered(self.waiting, now)]
        return self._starts([*needs, WorkEstimate(0.0, 0.0)], now)[-1] - now

    def snapshot(self, lane: str) -> LaneSnapshot:
        now = self._clock.monotonic()
        rules = self.lanes.lane(lane)
        arrived = [ticket.waiting.arrived for ticket in self.waiting if ticket.lane == lane]
        wait = self.wait_ahead()
        return LaneSnapshot(
            depth=len(arrived),
            running=self._running_in[lane],
            queue=rules.queue,
            limit=rules.running,
            oldest_seconds=now - min(arrived) if arrived else 0.0,
            wait_seconds=wait,
            retry_after=max(1.0, wait),
            rejected=dict(self._rejected.get(lane, {})),
        )

    def _starts(self, needs: Sequence[WorkEstimate], now: float) -> list[float]:
        return starts(
            needs,
            [self._view(ticket, now) for ticket in self.running],
            now=now,
            slots=self.open_slots,
            prefills=self._prefills,
        )

    def _view(self, ticket: QueuedRequest, now: float) -> SlotOccupancy:
        step = self._step(len(self.running))
        expected = ticket.estimate.output_tokens
        if ticket.first_token is None:
            first = max(now, ticket.started + ticket.estimate.prefill)
            return SlotOccupancy(first, first + expected * step)
        left = max(1.0, expected - ticket.produced)
        return SlotOccupancy(ticket.first_token, now + left * step)

    def _forget_place(self, ticket: QueuedRequest) -> None:
        key = ticket.lane, ticket.terms.tenant
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]


def _need(ticket: QueuedRequest) -> WorkEstimate:
    return WorkEstimate(ticket.estimate.prefill, ticket.estimate.decode)

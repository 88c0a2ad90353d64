"""Which waiting request runs next, and which can no longer keep its promise: pure functions.

A policy sees the queue, the clock and what each lane has had, and returns an order; it knows no
thread, no future and no backend. ``slo`` orders by work and slack and refuses what has become
hopeless; ``sjf`` and ``fifo`` are there to be compared with, and refuse nothing.
Sources: least work and slack (docs/adr/0027-order-by-work-and-slack.md), highest response ratio (Brinch Hansen 1971),
virtual token counters (Sheng et al., OSDI 2024).

When each waiting request would begin, if the order stayed and everything went as estimated.

List scheduling on two resources: prefills go one after another (``prefills`` at a time), and each
request holds a slot from the start of its prefill to its last token. Pure; times are monotonic
seconds.

Long prompts of bulk work read piece by piece, so that people wait for a piece and not for the prompt.

A prompt that is being read cannot be put aside, and prompts are read one at a time. While people ask,
the beginnings of a bulk prompt are therefore read as requests of their own, each a little longer than
the last, and who came meanwhile goes in between; the generator keeps what it has read. That costs a
token a piece, and nothing while nobody asks. Pure but for the last arrival. After chunked prefill
(Agrawal et al. 2024, Sarathi-Serve).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from ondol.core.types import GenerationRequest

PolicyName = Literal["slo", "sjf", "fifo"]

SLACK_SHARE = 0.5
"""How much a second of slack counts against a second of work."""
PASSED_OVER = 3
"""So many requests with a deadline may go before one without that has waited its age."""
OWED_SECONDS = 5.0
"""A lane this far ahead of its share lets a lane without deadlines go first."""


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """What a policy may know of a waiting request. Times are monotonic seconds.

    ``prefill`` is the time from its start to its first token, seldom exceeded; ``work`` its share
    of the machine in all. ``deadline`` is when its first token is promised; ``refusable`` says
    whether it rather be refused than late.
    """

    lane: str
    arrived: float
    sequence: int
    prefill: float = 0.0
    work: float = 0.0
    deadline: float | None = None
    refusable: bool = True

    def hopeless(self, now: float) -> bool:
        """Whether it would be late even if it began now."""
        return self.deadline is not None and now + self.prefill > self.deadline


@dataclass(frozen=True, slots=True)
class QueueState:
    """The clock and the past: ``lead`` is by how many weighted seconds a lane is ahead of the least
    served one that waits; ``passed_over`` how many went before aged requests without a deadline."""

    now: float
    lead: Mapping[str, float] = field(default_factory=dict)
    passed_over: int = 0


class Policy(Protocol):
    """``order`` returns every index once, the next first; ``lapsed`` those to refuse now.

    ``refuses`` says whether it refuses anybody for a deadline, also before the wait.
    """

    @property
    def refuses(self) -> bool: ...
    def order(self, waiting: Sequence[WaitingRequest], moment: QueueState) -> list[int]: ...
    def lapsed(self, waiting: Sequence[WaitingRequest], now: float) -> list[int]: ...


class Fifo:
    """First come, first served."""

    refuses = False

    def order(self, waiting: Sequence[WaitingRequest], moment: QueueState) -> list[int]:
        return sorted(range(len(waiting)), key=lambda i: waiting[i].sequence)

    def lapsed(self, waiting: Sequence[WaitingRequest], now: float) -> list[int]:
        return []


class ShortestFirst:
    """Least work first, whatever was promised and however long somebody waits."""

    refuses = False

    def order(self, waiting: Sequence[WaitingRequest], moment: QueueState) -> list[int]:
        return sorted(range(len(waiting)), key=lambda i: (waiting[i].work, waiting[i].sequence))

    def lapsed(self, waiting: Sequence[WaitingRequest], now: float) -> list[int]:
        return []


@dataclass(frozen=True, slots=True)
class Slo:
    """Promises first: least work and slack; without a promise by response ratio, aged ones in turn.

    ``age_seconds`` after its arrival a request without a deadline goes first, oldest first, after
    at most ``PASSED_OVER`` others. Lanes that had more than their weight's share step back.
    """

    age_seconds: float = 30.0

    @property
    def refuses(self) -> bool:
        return True

    def order(self, waiting: Sequence[WaitingRequest], moment: QueueState) -> list[int]:
        now, lead = moment.now, moment.lead
        promised: list[tuple[float, int, int]] = []
        free: list[tuple[float, int, int]] = []
        aged: list[tuple[float, int, int]] = []
        for index, item in enumerate(waiting):
            if item.deadline is not None and not item.hopeless(now):
                slack = item.deadline - now - item.prefill
                key = item.work + SLACK_SHARE * slack + lead.get(item.lane, 0.0)
                promised.append((key, item.sequence, index))
            elif now - item.arrived >= self.age_seconds:
                aged.append((item.arrived, item.sequence, index))
            else:
                work = max(item.work, 1e-3)
                ratio = (now - item.arrived + work) / work
                key = -ratio / (1.0 + lead.get(item.lane, 0.0))
                free.append((key, item.sequence, index))
        unpromised = [index for *_, index in sorted(aged)] + [index for *_, index in sorted(free)]
        ranked = [index for *_, index in sorted(promised)]
        if not ranked or not unpromised:
            return ranked + unpromised
        first = unpromised[0]
        if (aged and moment.passed_over >= PASSED_OVER) or self._owed(
            waiting[first], waiting[ranked[0]], lead
        ):
            return [first, *ranked, *unpromised[1:]]
        return ranked + unpromised

    def lapsed(self, waiting: Sequence[WaitingRequest], now: float) -> list[int]:
        return [i for i, item in enumerate(waiting) if item.refusable and item.hopeless(now)]

    @staticmethod
    def _owed(free: WaitingRequest, promised: WaitingRequest, lead: Mapping[str, float]) -> bool:
        return lead.get(promised.lane, 0.0) - lead.get(free.lane, 0.0) > OWED_SECONDS


def policy_of(name: PolicyName, *, age_seconds: float) -> Policy:
    """Return the policy the settings name."""
    if name == "fifo":
        return Fifo()
    return ShortestFirst() if name == "sjf" else Slo(age_seconds)


@dataclass(frozen=True, slots=True)
class SlotOccupancy:
    """A request in a slot: when its prefill ends (past: it decodes), and when it leaves."""

    first_token: float
    end: float


@dataclass(frozen=True, slots=True)
class WorkEstimate:
    """What a waiting request will take: seconds to its first token, then seconds to its last."""

    prefill: float
    decode: float


def starts(
    ordered: Iterable[WorkEstimate],
    running: Sequence[SlotOccupancy],
    *,
    now: float,
    slots: int,
    prefills: int,
) -> list[float]:
    """Return when each of ``ordered`` begins, in their order; ``slots`` and ``prefills`` at least 1."""
    ends = sorted(max(now, item.end) for item in running)
    free = [now] * max(0, slots - len(ends)) + ends
    # More may run than there are slots, just after their number was lowered.
    free = free[len(free) - slots :] if len(ends) > slots else free
    heapq.heapify(free)
    busy = sorted(item.first_token for item in running if item.first_token > now)
    reading = [now] * max(0, prefills - len(busy)) + busy[max(0, len(busy) - prefills) :]
    heapq.heapify(reading)
    found = []
    for need in ordered:
        start = max(free[0], reading[0])
        found.append(start)
        heapq.heapreplace(reading, start + need.prefill)
        heapq.heapreplace(free, start + need.prefill + need.decode)
    return found


PIECE_SECONDS = 0.2
"""What somebody may have to wait for one piece, beside his own prompt."""
ATTENTIVE_SECONDS = 15.0
"""So long after the last request of a person another is expected."""
MOST_PIECES = 32


class Reading:
    """Knows when a person last asked."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")

    def asked(self, now: float) -> None:
        """Note that a person has asked, at ``now`` in the clock's seconds."""
        self._asked_at = now

    def expects(self, now: float) -> bool:
        """Return whether a person may ask soon."""
        return now - self._asked_at <= ATTENTIVE_SECONDS


def pieces(request: GenerationRequest, *, prefill: float) -> Iterator[GenerationRequest]:
    """Yield the beginnings of ``request`` to read before it; ``prefill`` seconds are its whole."""
    if not request.messages:
        return
    *before, last = request.messages
    count = min(math.ceil(prefill / PIECE_SECONDS), MOST_PIECES, len(last.content))
    for number in range(1, count):
        part = replace(last, content=last.content[: len(last.content) * number // count])
        yield replace(request, messages=(*before, part), max_tokens=1, json_schema=None)

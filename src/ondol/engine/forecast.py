"""When each waiting request would begin, if the order stayed and everything went as estimated.

List scheduling on two resources: prefills go one after another (``prefills`` at a time), and each
request holds a slot from the start of its prefill to its last token. Pure; times are monotonic
seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Running:
    """A request in a slot: when its prefill ends (past: it decodes), and when it leaves."""

    first_token: float
    end: float


@dataclass(frozen=True, slots=True)
class Need:
    """What a waiting request will take: seconds to its first token, then seconds to its last."""

    prefill: float
    decode: float


def starts(
    ordered: Iterable[Need],
    running: Sequence[Running],
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

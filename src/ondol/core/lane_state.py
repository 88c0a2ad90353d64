"""What can be said of a lane at one moment, for health pages and metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """A lane now: requests waiting and running, its bounds, and what a newcomer would meet.

    ``wait_seconds`` is the foreseen wait of an ordinary request that came now, ``retry_after`` what
    it would be told if it were refused; ``rejected`` counts refusals since the start by reason.
    """

    depth: int
    running: int
    queue: int
    limit: int
    oldest_seconds: float
    wait_seconds: float
    retry_after: float
    rejected: dict[str, int]


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """All lanes of one generator together, and its slots. ``drain_rate`` is requests a second."""

    depth: int
    running: int
    slots: int
    open_slots: int
    service_seconds: float
    drain_rate: float
    draining: bool
    lanes: dict[str, LaneSnapshot]

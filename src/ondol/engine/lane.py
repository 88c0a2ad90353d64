"""What can be said of a lane at one moment, for health pages and metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """A lane now: requests waiting and running, its bounds, and its measured pace in seconds.

    ``service_seconds`` is the moving average of how long one request holds a slot, 0 while none
    has finished; ``retry_after`` is what a request refused now would be told.
    """

    depth: int
    running: int
    queue: int
    slots: int
    oldest_seconds: float
    service_seconds: float
    retry_after: float
    draining: bool

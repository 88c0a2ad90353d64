"""Whether people use this process now: their requests inside it, and when the last one ended.

An observer that whoever gives way to people asks; it wakes nobody. Interactive is every lane but
``batch``. ``observe`` may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable

from ondol.core.clock import Clock
from ondol.core.events import Event, PressureChanged, RequestFinished
from ondol.core.settings.lane_sections import BATCH


class InteractiveTraffic:
    """``inside`` counts the interactive requests that wait or run now.

    ``shed`` says that the machine is so short of something that bulk work must not begin.
    """

    def __init__(self, *, inside: Callable[[], int], clock: Clock) -> None:
        self._inside = inside
        self._clock = clock
        self._ended_at = float("-inf")
        self.shed = False

    def last_seen(self) -> float:
        """Return when people were here last, in the clock's monotonic seconds: now while they are."""
        return self._clock.monotonic() if self._inside() else self._ended_at

    def observe(self, event: Event) -> None:
        if isinstance(event, RequestFinished):
            if event.lane != BATCH:
                self._ended_at = self._clock.monotonic()
        elif isinstance(event, PressureChanged):
            self.shed = event.shed

"""How fast requests leave, measured: over the last half minute, and a moving average of their time.

Owns times of departure, bounded. Knows no request.
"""

from __future__ import annotations

from collections import deque

from ondol.core.clock import Clock

_WINDOW_SECONDS = 30.0
_KEPT = 512
_UNMEASURED_SECONDS = 5.0
_SMOOTHING = 0.2


class RateMeter:
    """Departures by lane."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gone: deque[tuple[float, str]] = deque(maxlen=_KEPT)
        self.service_seconds = 0.0

    def finished(self, lane: str, *, seconds: float) -> None:
        """Note a request that has ended after holding its slot for ``seconds``."""
        past = self.service_seconds
        self.service_seconds = past + (_SMOOTHING if past else 1.0) * (seconds - past)
        self._gone.append((self._clock.monotonic(), lane))

    def rate(self, *, lane: str | None = None) -> float:
        """Return departures a second of ``lane``, or of all, over the window; 0 while unmeasured."""
        now = self._clock.monotonic()
        while self._gone and self._gone[0][0] < now - _WINDOW_SECONDS:
            self._gone.popleft()
        times = [at for at, name in self._gone if lane in (None, name)]
        if not times:
            return 0.0
        # The first departure opens the window that the others are counted over.
        return len(times) / max(now - times[0], self.service_seconds, 0.001)

    def seconds_for(self, count: int, *, lane: str) -> float:
        """Return how long ``count`` places of ``lane`` take to come free at its measured rate."""
        rate = self.rate(lane=lane) or self.rate()
        if rate:
            return count / rate
        return self.service_seconds * count or _UNMEASURED_SECONDS

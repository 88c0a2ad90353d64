from __future__ import annotations

from ondol.core.clock import ManualClock
from ondol.core.events import RequestFinished, Timing
from ondol.runtime.interactive_traffic import InteractiveTraffic


def test_people_are_seen_while_they_are_inside_and_when_they_leave() -> None:
    clock, inside = ManualClock(100.0), 0
    traffic = InteractiveTraffic(inside=lambda: inside, clock=clock)
    assert traffic.last_seen() == float("-inf")
    inside = 1
    assert traffic.last_seen() == clock.monotonic()
    traffic.observe(RequestFinished("chat", "m", "ok", Timing()))
    left, inside = clock.monotonic(), 0
    clock.advance(7.0)
    assert traffic.last_seen() == left
    traffic.observe(RequestFinished("batch", "m", "ok", Timing()))
    assert traffic.last_seen() == left, "bulk work is nobody who waits"

"""Later as a dependency, so that tests own it: a call after so many seconds, without a wait.

``LoopTimers`` are the event loop's own; ``ManualTimers`` fire when their clock is moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ondol.core.clock import ManualClock


class Timer(Protocol):
    """A call that is due later, unless it is cancelled."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Calls ``callback`` once, on the event loop's thread, ``seconds`` from now."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer: ...


class LoopTimers:
    """The running event loop's timers."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


@dataclass(slots=True, eq=False)
class _Due:
    at: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualTimers:
    """Timers over a ``ManualClock``: ``advance`` moves it and calls what falls due; for tests."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._due: list[_Due] = []

    @property
    def pending(self) -> int:
        """How many calls are due later."""
        return sum(not due.cancelled for due in self._due)

    @property
    def next_at(self) -> float | None:
        """When the next call is due, on the clock."""
        return min((due.at for due in self._due if not due.cancelled), default=None)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        due = _Due(self._clock.monotonic() + seconds, callback)
        self._due.append(due)
        return due

    def advance(self, seconds: float) -> None:
        """Move the clock by ``seconds`` and make the calls that are due by then, in their order."""
        self._clock.advance(seconds)
        now = self._clock.monotonic()
        fired = [due for due in self._due if due.at <= now]
        self._due = [due for due in self._due if due.at > now and not due.cancelled]
        for due in sorted(fired, key=lambda due: due.at):
            if not due.cancelled:
                due.callback()

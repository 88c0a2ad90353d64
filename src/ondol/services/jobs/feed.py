"""Who is told when a job changes: those who watch it, and the runner when there is work.

Also hears, as an observer, that people's requests ended and that the machine is short of
something. Event loop only, except ``observe``.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ondol.core.observe import Event, RequestFinished
from ondol.core.pressure_changed import PressureChanged

BATCH = "batch"


class JobFeed:
    """Passes on what happens to jobs inside this process; another process's changes it does not see."""

    def __init__(self) -> None:
        self.closed = False
        self.shed = False
        self._served = False
        self._watching: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], None] = _nothing
        self._drop: Callable[[str], None] = _nobody

    def attach(self, *, wake: Callable[[], None], drop: Callable[[str], None]) -> None:
        """Tell this runner from now on: ``wake`` when there may be work, ``drop`` a cancelled job."""
        self._loop = asyncio.get_running_loop()
        self._wake, self._drop = wake, drop

    def close(self) -> None:
        """End every watch: the process goes."""
        self.closed = True
        self._wake, self._drop, self._loop = _nothing, _nobody, None
        for events in self._watching.values():
            for event in events:
                event.set()

    def changed(self, job: str) -> None:
        """Say that something about ``job`` is new."""
        for event in self._watching.get(job, ()):
            event.set()

    def submitted(self, job: str) -> None:
        """Say that ``job`` has work."""
        self.changed(job)
        self._wake()

    def cancelled(self, job: str) -> None:
        """Say that ``job`` has none any more."""
        self._drop(job)
        self.changed(job)

    @contextmanager
    def watching(self, job: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever ``job`` changes."""
        event = asyncio.Event()
        self._watching[job].add(event)
        try:
            yield event
        finally:
            self._watching[job].discard(event)
            if not self._watching[job]:
                del self._watching[job]

    def people_served(self) -> bool:
        """Return whether a person's request has ended since this was last asked."""
        served, self._served = self._served, False
        return served

    def observe(self, event: Event) -> None:
        """Wake the runner when people are served or resources are back. From any thread."""
        if isinstance(event, PressureChanged):
            self.shed = event.shed
        elif not isinstance(event, RequestFinished) or event.lane == BATCH:
            return
        else:
            self._served = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake)


def _nothing() -> None:
    return None


def _nobody(_: str) -> None:
    return None

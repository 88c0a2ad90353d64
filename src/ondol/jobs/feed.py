"""Who is told when a job changes: those who watch it, and the runner when there is work. Event loop only."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class JobFeed:
    """Passes on what happens to jobs inside this process; another process's changes it does not see."""

    def __init__(self) -> None:
        self.closed = False
        self._watching: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._wake: Callable[[], None] = _nothing
        self._drop: Callable[[str], None] = _nobody

    def attach(self, *, wake: Callable[[], None], drop: Callable[[str], None]) -> None:
        """Tell this runner from now on: ``wake`` when there may be work, ``drop`` a cancelled job."""
        self._wake, self._drop = wake, drop

    def close(self) -> None:
        """End every watch: the process goes."""
        self.closed = True
        self._wake, self._drop = _nothing, _nobody
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


def _nothing() -> None:
    return None


def _nobody(_: str) -> None:
    return None

"""Finished requests on their way to a table: noted at once, written later by one thread.

Bounded in rows; what does not fit is dropped and counted, never waited for. A table that cannot be
written costs its rows and one log line, no request. Knows no store: ``write`` puts rows away and
``trim`` throws the oldest out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ondol.core.clock import Clock
from ondol.core.events import Event, RequestFinished, RequestRecord, record_of

_log = logging.getLogger("ondol.recorder")

Write = Callable[[Sequence[RequestRecord]], None]
LIMIT_ROWS = 10_000
GATHER_SECONDS = 1.0
TRIM_SECONDS = 60.0
CLOSE_SECONDS = 5.0
_DAY = 86_400.0


class Trim(Protocol):
    """Deletes some of the rows that ended before ``before`` or are not among the last ``keep``."""

    def __call__(self, *, before: float, keep: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how many rows are kept."""

    days: float
    rows: int


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """Rows since the start: written, dropped (too many waited), failed to be written; and waiting."""

    written: int = 0
    dropped: int = 0
    failed: int = 0
    waiting: int = 0


class Recorder:
    """An ``Observer`` of finished requests; ``close`` writes what waits.

    Rows are gathered for ``gather_seconds``, or until a quarter of ``limit_rows`` wait: one
    transaction for many requests.
    """

    def __init__(
        self,
        write: Write,
        *,
        clock: Clock,
        trim: Trim | None = None,
        retention: Retention | None = None,
        limit_rows: int = LIMIT_ROWS,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._write = write
        self._trim = trim
        self._retention = retention
        self._clock = clock
        self._limit = limit_rows
        self._gather = gather_seconds
        self._changed = threading.Condition()
        self._waiting: list[RequestRecord] = []
        self._closing = False
        self._writing = self._written = self._dropped = self._failed = 0
        self._broken = False
        self._trimmed: float | None = None
        self._thread = threading.Thread(target=self._work, name="ondol-recorder", daemon=True)
        self._thread.start()

    def observe(self, event: Event) -> None:
        """Note a finished request; returns at once, in some microseconds."""
        if not isinstance(event, RequestFinished):
            return
        record = record_of(event, time=self._clock.wall())
        with self._changed:
            if self._closing or len(self._waiting) >= self._limit:
                self._dropped += 1
                return
            self._waiting.append(record)
            if len(self._waiting) == 1 or self._full():
                self._changed.notify()

    def stats(self) -> RecorderStats:
        """Return the counts as they are now."""
        with self._changed:
            waiting = len(self._waiting) + self._writing
            return RecorderStats(self._written, self._dropped, self._failed, waiting)

    def close(self) -> bool:
        """Write what waits and end the thread; returns whether it ended within ``CLOSE_SECONDS``."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _full(self) -> bool:
        return len(self._waiting) * 4 >= self._limit

    def _work(self) -> None:
        while (rows := self._take()) is not None:
            self._put_away(rows)
            self._throw_out()

    def _take(self) -> list[RequestRecord] | None:
        """Return the next rows, or ``None`` when closed and nothing is left."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._full() and not self._closing:
                self._changed.wait_for(lambda: self._full() or self._closing, self._gather)
            if not self._waiting:
                return None
            rows, self._waiting = self._waiting, []
            self._writing = len(rows)
            return rows

    def _put_away(self, rows: Sequence[RequestRecord]) -> None:
        try:
            self._write(rows)
        except Exception as error:
            with self._changed:
                self._writing = 0
                self._failed += len(rows)
            self._complain(error)
            return
        with self._changed:
            self._writing = 0
            self._written += len(rows)
            failed = self._failed
        if self._broken:
            self._broken = False
            _log.info("metrics are recorded again; %d rows were lost so far", failed)

    def _throw_out(self) -> None:
        """Enforce the retention now and then: in small steps, so that other writers get between."""
        now = self._clock.monotonic()
        if self._trim is None or self._retention is None or self._broken:
            return
        if self._trimmed is not None and now - self._trimmed < TRIM_SECONDS:
            return
        self._trimmed = now
        before = self._clock.wall() - self._retention.days * _DAY
        try:
            while self._trim(before=before, keep=self._retention.rows) and not self._closing:
                pass
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Say it once until it works again; requests go on unrecorded."""
        if not self._broken:
            self._broken = True
            hint = getattr(error, "hint", "")
            _log.warning("metrics are not recorded: %s%s", error, f" ({hint})" if hint else "")

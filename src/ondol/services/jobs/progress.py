"""How far a job is, as everybody is told: counts, pace, and when it will be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ondol.store.job_rows import JobRow, JobState, Tally

PACE_ITEMS = 64


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and its items by state. Times are Unix seconds.

    ``errors`` counts failed items by code; ``items_per_second`` and ``eta_seconds`` come from the
    last items that ended, and are ``None`` before the first and after the last.
    """

    id: str
    task: str
    state: JobState
    priority: int
    key: str
    total: int
    done: int
    failed: int
    cancelled: int
    running: int
    queued: int
    errors: Mapping[str, int]
    items_per_second: float | None
    eta_seconds: float | None
    created: float
    started: float | None
    finished: float | None
    request_id: str

    def without_estimates(self) -> JobView:
        """Return it without what changes by itself."""
        return replace(self, items_per_second=None, eta_seconds=None)


def view_of(row: JobRow, tally: Tally, *, rate: float | None) -> JobView:
    """Return the view; ``rate`` is in items that are worked, equal ones counted once."""
    return JobView(
        id=row.id,
        task=row.task,
        state=row.state,
        priority=row.priority,
        key=row.key,
        total=row.total,
        done=tally.done,
        failed=tally.failed,
        cancelled=tally.cancelled,
        running=tally.leased,
        queued=tally.queued,
        errors=tally.errors,
        items_per_second=rate,
        eta_seconds=tally.work / rate if rate else None,
        created=row.created,
        started=row.started,
        finished=row.finished,
        request_id=row.request_id,
    )


def rate_of(count: int, first: float, *, since: float, now: float) -> float | None:
    """Return items a second from the last ``count`` ends, of which the earliest was at ``first``.

    ``since`` is when the work was taken up, so that time with nobody at work does not count.
    """
    if not count:
        return None
    begun, ended = (first, count - 1) if count >= PACE_ITEMS else (since, count)
    return ended / max(now - begun, 1e-3)

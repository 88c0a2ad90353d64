"""How far jobs step back for people: nothing new while they are there, one item now and then, never for ever.

Which job's items are taken next, and how many at once: pure functions of what is open and when.

Tenants take turns: who has least under way goes first, then who had a turn longest ago. A tenant's
own jobs go by priority, which rises with waiting, then by age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ondol.jobs.job_rows import OpenJob

CALM_SECONDS = 5.0
"""So long after the last interactive request people count as there: another may come."""

QUIET_SECONDS = 30.0
"""So long after the last interactive request only one item runs: whoever comes back meets one."""


class JobThrottle:
    """Decides how many items may begin. ``seconds`` is the longest it holds everything back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def places(self, *, free: int, running: int, last_seen: float, now: float) -> int:
        """Return how many of ``free`` places may be filled while ``running`` items run.

        ``last_seen`` is when people were here last, ``now`` while they are; monotonic seconds.
        """
        if not self._seconds:
            return free
        if now - last_seen >= CALM_SECONDS:
            self._since = None
            quiet = now - last_seen >= QUIET_SECONDS
            return free if quiet else min(free, max(0, 1 - running))
        if self._since is None or running:
            # Who stays is held back anew from the end of each item that ran beside people.
            self._since = now
        return min(free, 1) if now - self._since >= self._seconds else 0


def in_turn(
    jobs: Sequence[OpenJob], turns: Mapping[str, int], *, now: float, age_seconds: float
) -> list[OpenJob]:
    """Return ``jobs``, the next first. ``turns`` has each tenant's last turn as a growing number."""
    busy = Counter[str]()
    for job in jobs:
        busy[job.tenant] += job.leased

    def rank(job: OpenJob) -> tuple[int, int, float, float]:
        aged = job.priority + max(0.0, now - job.created) / age_seconds
        return busy[job.tenant], turns.get(job.tenant, 0), -aged, job.created

    return sorted(jobs, key=rank)


def share_of(places: int, jobs: Sequence[OpenJob]) -> int:
    """Return how many of ``places`` one tenant may take before the next has a turn."""
    return max(1, places // max(1, len({job.tenant for job in jobs})))

"""Which job's items are taken next, and how many at once: pure functions of what is open and when.

Tenants take turns: who has least under way goes first, then who had a turn longest ago. A tenant's
own jobs go by priority, which rises with waiting, then by age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ondol.store.job_rows import OpenJob


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

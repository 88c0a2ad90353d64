"""Jobs and their items, durable: handed in, taken, ended, read, thrown out.

Owns the tables ``jobs`` and ``job_items``. Each method is one transaction of the shared
``Database``, so what it reported survives a crash. Counts are derived from the items. Times are
Unix seconds that the caller brings; knows no task, no task's input and no thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ondol.core.errors import NotFound
from ondol.store import job_endings, job_intake, job_leases
from ondol.store.database import Database
from ondol.store.job_intake import COLUMNS
from ondol.store.job_rows import (
    OUTCOMES,
    ItemError,
    ItemResult,
    JobRow,
    Lease,
    NewItem,
    NewJob,
    OpenJob,
    Outcome,
    Tally,
)

_OPEN = "state IN ('queued', 'running')"
_PACE_ITEMS = 64


class JobStore:
    """The jobs in ``database``. Where a ``tenant`` is given, another's jobs are ``NotFound``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Handing in and looking

    def create(
        self, job: NewJob, items: Sequence[NewItem], *, most_queued: int, share: float = 1.0
    ) -> JobRow:
        """Store a job with its items in their order, all or nothing.

        Equal digests are worked once. A ``key`` that this tenant has used returns that job, or
        raises ``Conflict`` where it holds other work. Raises ``Overloaded`` where all items without
        an outcome would be more than ``most_queued``, or the tenant's more than its ``share``.
        """
        digest = job_intake.digest_of(job, items)
        with self._database.write() as connection:
            if job.key and (known := job_intake.with_key(connection, job, digest)):
                return known
            job_intake.require_room(connection, job, len(items), most=most_queued, share=share)
            number = connection.execute(
                "INSERT INTO jobs(id, task, tenant, state, priority, key, digest, request_id, "
                "total, created) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
                (
                    *(job.id, job.task, job.tenant, job.priority, job.key, digest),
                    *(job.request_id, len(items), job.created),
                ),
            ).lastrowid
            connection.executemany(
                "INSERT INTO job_items(job, ordinal, id, digest, prefix_key, same_as, state, code, "
                "finished, input, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                job_intake.item_rows(number or 0, job, items),
            )
            job_leases.settle(connection, number or 0, now=job.created)
            return _find(connection, job.id, None)[1]

    def get(self, job: str, *, tenant: str | None = None) -> JobRow:
        """Return a job; raises ``NotFound``."""
        with self._database.read() as connection:
            return _find(connection, job, tenant)[1]

    def recent(
        self, *, tenant: str | None = None, limit: int = 100, after: str | None = None
    ) -> list[JobRow]:
        """Return jobs, newest first, those older than the job ``after``."""
        with self._database.read() as connection:
            before = _find(connection, after, tenant)[0] if after else 2**62
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM jobs WHERE number < ? AND NOT doomed "
                "AND (? IS NULL OR tenant = ?) ORDER BY number DESC LIMIT ?",
                (before, tenant, tenant, limit),
            ).fetchall()
        return [JobRow(*row) for row in rows]

    def tallies(self, jobs: Sequence[str]) -> dict[str, Tally]:
        """Return the items of each job by state."""
        marks = ", ".join("?" * len(jobs))
        counts: dict[str, dict[str, Any]] = {job: defaultdict(int, errors={}) for job in jobs}
        with self._database.read() as connection:
            for job, state, code, items, work in connection.execute(
                "SELECT j.id, i.state, i.code, count(*), sum(i.same_as IS NULL) FROM jobs j "
                f"JOIN job_items i ON i.job = j.number WHERE j.id IN ({marks}) "
                "GROUP BY i.job, i.state, i.code",
                tuple(jobs),
            ):
                found = counts[job]
                found[state] += items
                if state == "failed":
                    found["errors"][code] = items
                elif state in ("queued", "leased"):
                    found["work"] += work
        return {job: Tally(**found) for job, found in counts.items()}

    def pace(self, job: str, *, since: float) -> tuple[int, float]:
        """Return how many of the last items ended after ``since``, and when the first of them did."""
        with self._database.read() as connection:
            count, first = connection.execute(
                "SELECT count(*), min(finished) FROM (SELECT finished FROM job_items WHERE "
                "job = (SELECT number FROM jobs WHERE id = ?) AND same_as IS NULL "
                "AND finished > ? ORDER BY finished DESC LIMIT ?)",
                (job, since, _PACE_ITEMS),
            ).fetchone()
        return count, first or since

    def results(
        self,
        job: str,
        *,
        tenant: str | None = None,
        after: int = -1,
        limit: int = 200,
        states: Sequence[Outcome] = OUTCOMES,
    ) -> list[ItemResult]:
        """Return items that have an outcome, by ordinal, those after ``after``."""
        marks = ", ".join("?" * len(states))
        with self._database.read() as connection:
            number, _ = _find(connection, job, tenant)
            rows = connection.execute(
                "SELECT i.ordinal, i.id, i.state, o.attempts, o.result, o.error, o.started, "
                "i.finished, i.same_as FROM job_items i JOIN job_items o "
                "ON o.job = i.job AND o.ordinal = coalesce(i.same_as, i.ordinal) "
                f"WHERE i.job = ? AND i.ordinal > ? AND i.state IN ({marks}) "
                "ORDER BY i.ordinal LIMIT ?",
                (number, after, *states, limit),
            ).fetchall()
        return [_result(row) for row in rows]

    def result_keys(self, job: str, *, tenant: str | None = None, most: int = 100) -> list[str]:
        """Return the names of the fields that results of a job have under ``result``, ascending."""
        with self._database.read() as connection:
            number, _ = _find(connection, job, tenant)
            rows = connection.execute(
                "SELECT DISTINCT f.key FROM job_items i, json_each(i.result, '$.result') f "
                "WHERE i.job = ? AND i.state = 'done' AND i.same_as IS NULL "
                "AND typeof(f.key) = 'text' ORDER BY f.key LIMIT ?",
                (number, most),
            ).fetchall()
        return [row[0] for row in rows]

    def backlog(self) -> tuple[dict[str, int], float | None]:
        """Return the items of all open jobs by state, and when the oldest of those queued came."""
        with self._database.read() as connection:
            states = connection.execute(
                "SELECT i.state, count(*) FROM jobs j JOIN job_items i ON i.job = j.number "
                f"WHERE j.{_OPEN} GROUP BY i.state"
            ).fetchall()
            oldest = connection.execute(
                f"SELECT min(created) FROM jobs WHERE {_OPEN} AND EXISTS (SELECT 1 FROM job_items i "
                "WHERE i.job = jobs.number AND i.state = 'queued')"
            ).fetchone()[0]
        return dict(states), oldest

    # Working

    def open_jobs(self) -> list[OpenJob]:
        """Return the jobs with work left, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, tenant, priority, created, (SELECT count(*) FROM job_items i "
                f"WHERE i.job = jobs.number AND i.state = 'leased') FROM jobs WHERE {_OPEN} "
                "ORDER BY number"
            ).fetchall()
        return [OpenJob(*row) for row in rows]

    def claim(
        self, job: str, *, limit: int, now: float, seconds: float, suspects: bool = False
    ) -> list[Lease]:
        """Take up to ``limit`` items of ``job`` for ``seconds``, in prefix order.

        Items that were lost before (``job_leases.SUSPECT`` times) are taken only as ``suspects``.
        """
        with self._database.write() as connection:
            return job_leases.claim(
                connection, job, limit=limit, now=now, seconds=seconds, suspects=suspects
            )

    def renew(self, leases: Sequence[Lease], *, until: float) -> set[str]:
        """Prolong leases; return the tokens of those that still hold."""
        with self._database.write() as connection:
            return job_leases.renew(connection, leases, until=until)

    def finish(self, lease: Lease, result: str, *, now: float) -> bool:
        """Take a result (JSON); false where the lease no longer holds, and nothing is changed."""
        with self._database.write() as connection:
            taken = job_leases.finish(connection, lease, result, now=now)
            return taken and self._settled(connection, lease.job, now)

    def fail(
        self, lease: Lease, error: ItemError, *, now: float, retry_at: float | None = None
    ) -> bool:
        """Note a failed attempt; without ``retry_at`` it was the last. False as for ``finish``."""
        with self._database.write() as connection:
            taken = job_leases.fail(connection, lease, error, now=now, retry_at=retry_at)
            return taken and self._settled(connection, lease.job, now)

    def give_back(
        self, leases: Sequence[Lease], *, not_before: float = 0.0, refused_at: float | None = None
    ) -> int:
        """Put items back that were not worked; return how many leases still held."""
        with self._database.write() as connection:
            return sum(
                job_leases.give_back(
                    connection, lease, not_before=not_before, refused_at=refused_at
                )
                for lease in leases
            )

    def reclaim(self, *, now: float, crashes: int, everything: bool = False) -> int:
        """Put back items whose lease ran out, or ``everything`` that is taken, when nobody works.

        An item lost ``crashes`` times has failed. Returns how many jobs had any.
        """
        with self._database.write() as connection:
            numbers = job_leases.reclaim(
                connection, now=now, everything=everything, crashes=crashes
            )
            if everything:
                connection.execute(f"UPDATE jobs SET resumed = ? WHERE {_OPEN}", (now,))
            for number in numbers:
                job_leases.settle(connection, number, now=now)
        return len(numbers)

    # Ending

    def cancel(self, job: str, *, tenant: str | None = None, now: float) -> JobRow:
        """End an open job: what has no outcome is cancelled, what is under way loses its lease."""
        with self._database.write() as connection:
            number, row = _find(connection, job, tenant)
            if row.finished is None:
                job_endings.cancel(connection, number, now=now)
            return _find(connection, job, tenant)[1]

    def resume(self, job: str, *, tenant: str | None = None, failed: bool, now: float) -> int:
        """Queue the cancelled items of a job again, and with ``failed`` the failed ones.

        What never was readable stays failed. Returns how many items wait anew.
        """
        with self._database.write() as connection:
            number, _ = _find(connection, job, tenant)
            return job_endings.resume(connection, number, failed=failed, now=now)

    def doom(self, job: str, *, tenant: str | None = None) -> None:
        """Forget an ended job; ``prune`` removes its rows. Raises ``Conflict`` while it is open."""
        with self._database.write() as connection:
            number, row = _find(connection, job, tenant)
            job_endings.doom(connection, number, row)

    def prune(self, *, before: float, at_most: int = 500) -> int:
        """Remove rows of jobs that are doomed or ended before ``before``; return how many went.

        At most about ``at_most`` a call, so that no other writer waits long.
        """
        with self._database.write() as connection:
            return job_endings.prune(connection, before=before, at_most=at_most)

    def _settled(self, connection: sqlite3.Connection, job: str, now: float) -> bool:
        job_leases.settle(connection, job_leases.number_of(connection, job), now=now)
        return True


def _find(connection: sqlite3.Connection, job: str, tenant: str | None) -> tuple[int, JobRow]:
    found = connection.execute(
        f"SELECT number, {COLUMNS} FROM jobs WHERE id = ? AND NOT doomed AND (? IS NULL OR tenant = ?)",
        (job, tenant, tenant),
    ).fetchone()
    if found is None:
        raise NotFound(
            f"there is no job {job[:80]!r}", hint="see `ondol jobs list`", code="job_not_found"
        )
    return found[0], JobRow(*found[1:])


def _result(row: tuple[Any, ...]) -> ItemResult:
    ordinal, name, state, attempts, result, error, started, finished, same_as = row
    return ItemResult(
        ordinal=ordinal,
        id=name,
        state=state,
        attempts=attempts,
        result=result if state == "done" else None,
        error=ItemError(**json.loads(error)) if error and state == "failed" else None,
        started=started,
        finished=finished,
        same_as=same_as,
    )

"""Jobs and their items, durable: handed in, taken, ended, read, thrown out.

Owns the rows of ``jobs`` and ``job_items``. Each method is one transaction of the shared
``Database``, so what it reported survives a crash. Whoever takes an item gets a token, and only with
the current token is a result taken; so an item that two have worked still ends once. Counts are
derived from the items. Times are Unix seconds that the caller brings; knows no task, no task's
input and no thread.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ondol.core.errors import Conflict, InvalidInput, NotFound, Overloaded
from ondol.jobs.job_rows import (
    OUTCOMES,
    ItemError,
    ItemLease,
    ItemResult,
    JobRow,
    NewItem,
    NewJob,
    OpenJob,
    Outcome,
    Tally,
)
from ondol.store.database import Database

SUSPECT = 2
"""So many times lost, an item may be what kills the process."""

WORKER_DIED = ItemError(
    code="worker_died",
    message="the process ended each time while this item was under way",
    hint="look for what ended it in the system's log (out of memory?); then resume the job",
)
_COLUMNS = (
    "id, task, tenant, state, priority, key, request_id, total, created, started, resumed, finished"
)
"""The columns of a ``JobRow``, in its order."""

_OPEN = "state IN ('queued', 'running')"
_HELD = "job = (SELECT number FROM jobs WHERE id = ?) AND ordinal = ? AND state = 'leased' AND lease_token = ?"
_NO_LEASE = "lease_token = NULL, lease_until = NULL"
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
        digest = _digest_of(job, items)
        with self._database.write() as connection:
            if job.key and (known := _with_key(connection, job, digest)):
                return known
            _require_room(connection, job, len(items), most=most_queued, share=share)
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
                _item_rows(number or 0, job, items),
            )
            _settle(connection, number or 0, now=job.created)
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
                f"SELECT {_COLUMNS} FROM jobs WHERE number < ? AND NOT doomed "
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
                tally = counts[job]
                tally[state] += items
                if state == "failed":
                    tally["errors"][code] = items
                elif state in ("queued", "leased"):
                    tally["work"] += work
        return {job: Tally(**tally) for job, tally in counts.items()}

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
    ) -> list[ItemLease]:
        """Take up to ``limit`` items of ``job`` for ``seconds``, neighbours in prefix order.

        Items that were lost before (``SUSPECT`` times) are taken only as ``suspects``.
        """
        lost = f"losses >= {SUSPECT}" if suspects else f"losses < {SUSPECT}"
        with self._database.write() as connection:
            row = connection.execute(
                f"SELECT number, task, tenant FROM jobs WHERE id = ? AND {_OPEN}", (job,)
            ).fetchone()
            if row is None:
                return []
            number, task, tenant = row
            items = connection.execute(
                "UPDATE job_items SET state = 'leased', lease_token = lower(hex(randomblob(12))), "
                "lease_until = ?, started = coalesce(started, ?) WHERE job = ? AND ordinal IN ("
                "SELECT ordinal FROM job_items WHERE job = ? AND state = 'queued' "
                f"AND same_as IS NULL AND not_before <= ? AND {lost} "
                "ORDER BY prefix_key, ordinal LIMIT ?) "
                "RETURNING prefix_key, ordinal, id, input, lease_token, attempts, losses, "
                "refused_since",
                (now + seconds, now, number, number, now, limit),
            ).fetchall()
            if items:
                connection.execute(
                    "UPDATE jobs SET state = 'running', started = coalesce(started, ?), "
                    "resumed = coalesce(resumed, ?) WHERE number = ?",
                    (now, now, number),
                )
        return [
            ItemLease(job, ordinal, name, task, tenant, given, token, now + seconds, *history)
            for _, ordinal, name, given, token, *history in sorted(items, key=lambda row: row[:2])
        ]

    def renew(self, leases: Sequence[ItemLease], *, until: float) -> set[str]:
        """Prolong leases; return the tokens of those that still hold."""
        with self._database.write() as connection:
            return {
                lease.token
                for lease in leases
                if _update_held(connection, lease, "lease_until = ?", until)
            }

    def finish(self, lease: ItemLease, result: str, *, now: float) -> bool:
        """Take a result (JSON) for an item and for those equal to it.

        False where the lease no longer holds, and nothing is changed.
        """
        with self._database.write() as connection:
            taken = _update_held(
                connection,
                lease,
                "state = 'done', code = '', error = NULL, result = ?, finished = ?, "
                f"attempts = attempts + 1, {_NO_LEASE}",
                *(result, now),
            )
            if taken:
                number = _number_of(connection, lease.job)
                _end_equals(connection, number, lease.ordinal, "done", "", now)
                _settle(connection, number, now=now)
        return taken

    def fail(
        self, lease: ItemLease, error: ItemError, *, now: float, retry_at: float | None = None
    ) -> bool:
        """Note a failed attempt; without ``retry_at`` it was the last. False as for ``finish``."""
        state, finished = ("failed", now) if retry_at is None else ("queued", None)
        with self._database.write() as connection:
            taken = _update_held(
                connection,
                lease,
                "state = ?, code = ?, error = ?, finished = ?, not_before = ?, "
                f"attempts = attempts + 1, refused_since = NULL, {_NO_LEASE}",
                *(state, error.code, _as_text(error), finished, retry_at or 0.0),
            )
            if taken:
                number = _number_of(connection, lease.job)
                if retry_at is None:
                    _end_equals(connection, number, lease.ordinal, "failed", error.code, now)
                _settle(connection, number, now=now)
        return taken

    def give_back(
        self,
        leases: Sequence[ItemLease],
        *,
        not_before: float = 0.0,
        refused_at: float | None = None,
    ) -> int:
        """Put items back as if they had not been taken; return how many leases still held.

        ``refused_at`` is when they were refused.
        """
        with self._database.write() as connection:
            return sum(
                _update_held(
                    connection,
                    lease,
                    "state = 'queued', not_before = ?, refused_since = CASE WHEN ? IS NULL "
                    f"THEN refused_since ELSE coalesce(refused_since, ?) END, {_NO_LEASE}",
                    *(not_before, refused_at, refused_at),
                )
                for lease in leases
            )

    def reclaim(self, *, now: float, crashes: int, everything: bool = False) -> int:
        """Put back items whose lease ran out, or ``everything`` that is taken, when nobody works.

        An item lost ``crashes`` times has failed. Returns how many jobs had any.
        """
        bound = float("inf") if everything else now
        failed = ("failed", WORKER_DIED.code, _as_text(WORKER_DIED), now)
        with self._database.write() as connection:
            lost = connection.execute(
                "SELECT job, ordinal, losses FROM job_items "
                "WHERE state = 'leased' AND lease_until <= ?",
                (bound,),
            ).fetchall()
            for number, ordinal, losses in lost:
                given_up = losses + 1 >= crashes
                outcome = failed if given_up else ("queued", "", None, None)
                connection.execute(
                    "UPDATE job_items SET state = ?, code = ?, error = ?, finished = ?, "
                    f"losses = ?, {_NO_LEASE} WHERE job = ? AND ordinal = ?",
                    (*outcome, losses + 1, number, ordinal),
                )
                if given_up:
                    _end_equals(connection, number, ordinal, "failed", WORKER_DIED.code, now)
            if everything:
                connection.execute(f"UPDATE jobs SET resumed = ? WHERE {_OPEN}", (now,))
            numbers = {number for number, _, _ in lost}
            for number in sorted(numbers):
                _settle(connection, number, now=now)
        return len(numbers)

    # Ending

    def cancel(self, job: str, *, tenant: str | None = None, now: float) -> JobRow:
        """End an open job; what is under way loses its lease. One that has ended stays as it is."""
        with self._database.write() as connection:
            number, row = _find(connection, job, tenant)
            if row.finished is not None:
                return row
            connection.execute(
                f"UPDATE job_items SET state = 'cancelled', finished = ?, {_NO_LEASE} "
                "WHERE job = ? AND state IN ('queued', 'leased')",
                (now, number),
            )
            connection.execute(
                "UPDATE jobs SET state = 'cancelled', finished = ? WHERE number = ?", (now, number)
            )
            return _find(connection, job, tenant)[1]

    def resume(self, job: str, *, tenant: str | None = None, failed: bool, now: float) -> int:
        """Queue the cancelled items of a job again, and with ``failed`` the failed ones.

        What never was readable stays failed. Returns how many items wait anew.
        """
        states = "('cancelled', 'failed')" if failed else "('cancelled')"
        with self._database.write() as connection:
            number, _ = _find(connection, job, tenant)
            items = connection.execute(
                "UPDATE job_items SET state = 'queued', code = '', error = NULL, finished = NULL, "
                "attempts = 0, losses = 0, not_before = 0, refused_since = NULL "
                f"WHERE job = ? AND state IN {states} AND (input <> '' OR same_as IS NOT NULL)",
                (number,),
            ).rowcount
            if items:
                connection.execute(
                    "UPDATE jobs SET state = 'queued', finished = NULL, resumed = ? "
                    f"WHERE number = ? AND NOT {_OPEN}",
                    (now, number),
                )
        return items

    def doom(self, job: str, *, tenant: str | None = None) -> None:
        """Forget an ended job; ``prune`` removes its rows. Raises ``Conflict`` while it is open."""
        with self._database.write() as connection:
            number, row = _find(connection, job, tenant)
            if row.finished is None:
                raise Conflict(
                    f"job {row.id} is {row.state}", hint="cancel it first", code="job_open"
                )
            connection.execute("UPDATE jobs SET doomed = 1 WHERE number = ?", (number,))

    def prune(self, *, before: float, at_most: int = 500) -> int:
        """Remove rows of jobs that are doomed or ended before ``before``; return how many went.

        At most about ``at_most`` a call, so that no other writer waits long.
        """
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET doomed = 1 WHERE finished < ? AND NOT doomed", (before,)
            )
            row = connection.execute(
                "SELECT number FROM jobs WHERE doomed ORDER BY number LIMIT 1"
            ).fetchone()
            if row is None:
                return 0
            gone = connection.execute(
                "DELETE FROM job_items WHERE rowid IN "
                "(SELECT rowid FROM job_items WHERE job = ? LIMIT ?)",
                (row[0], at_most),
            ).rowcount
            if gone < at_most:
                connection.execute("DELETE FROM jobs WHERE number = ?", row)
        return gone + 1


def _find(connection: sqlite3.Connection, job: str, tenant: str | None) -> tuple[int, JobRow]:
    row = connection.execute(
        f"SELECT number, {_COLUMNS} FROM jobs WHERE id = ? AND NOT doomed AND (? IS NULL OR tenant = ?)",
        (job, tenant, tenant),
    ).fetchone()
    if row is None:
        raise NotFound(
            f"there is no job {job[:80]!r}", hint="see `ondol jobs list`", code="job_not_found"
        )
    return row[0], JobRow(*row[1:])


def _number_of(connection: sqlite3.Connection, job: str) -> int:
    """Return the row number of a job that is known to exist."""
    number: int = connection.execute("SELECT number FROM jobs WHERE id = ?", (job,)).fetchone()[0]
    return number


def _with_key(connection: sqlite3.Connection, job: NewJob, digest: bytes) -> JobRow | None:
    """Return the job this tenant gave the same key; raises ``Conflict`` where it holds other work."""
    row = connection.execute(
        f"SELECT digest, {_COLUMNS} FROM jobs WHERE tenant = ? AND key = ? AND NOT doomed",
        (job.tenant, job.key),
    ).fetchone()
    if row is None:
        return None
    if row[0] != digest:
        raise Conflict(
            f"the key {job.key[:80]!r} belongs to job {row[1]}, which holds other work",
            hint="choose another key for another job",
            code="key_used",
            param="key",
        )
    return JobRow(*row[1:])


def _require_room(
    connection: sqlite3.Connection, job: NewJob, items: int, *, most: int, share: float
) -> None:
    """Raise ``Overloaded`` where ``items`` more would be too many, ``InvalidInput`` where always."""
    allowed = max(1, int(share * most))
    if items > allowed:
        raise InvalidInput(
            f"the job has {items} items, {allowed} may wait here",
            hint="split the job, or raise jobs.max_queued_items",
            code="too_many_items",
            param="items",
        )
    queued, own = connection.execute(
        "SELECT count(*), coalesce(sum(j.tenant = ?), 0) FROM jobs j JOIN job_items i "
        f"ON i.job = j.number WHERE j.{_OPEN} AND i.state IN ('queued', 'leased')",
        (job.tenant,),
    ).fetchone()
    if queued + items > most or own + items > allowed:
        waiting, limit = (queued, most) if queued + items > most else (own, allowed)
        raise Overloaded(
            f"{waiting} items wait already and {items} came, the limit is {limit}",
            retry_after=60.0,
            hint="wait until jobs have ended, or raise jobs.max_queued_items",
            code="jobs_full",
        )


def _item_rows(number: int, job: NewJob, items: Sequence[NewItem]) -> list[tuple[Any, ...]]:
    """Return the rows of ``items``; one equal to an earlier one names it and keeps no input."""
    first: dict[bytes, int] = {}
    rows = []
    for ordinal, item in enumerate(items):
        same_as, error = None, None
        ended: tuple[str, str, float | None] = ("queued", "", None)
        if item.error is None:
            same_as = first.setdefault(item.digest, ordinal)
            same_as = None if same_as == ordinal else same_as
        else:
            error, ended = _as_text(item.error), ("failed", item.error.code, job.created)
        given = "" if same_as is not None else item.input
        identity = (number, ordinal, item.id, item.digest, item.prefix_key, same_as)
        rows.append((*identity, *ended, given, error))
    return rows


def _digest_of(job: NewJob, items: Sequence[NewItem]) -> bytes:
    """Return what is equal for jobs of the same task with the same items in the same order."""
    whole = hashlib.sha256(job.task.encode())
    for item in items:
        whole.update(len(item.id.encode()).to_bytes(4, "big") + item.id.encode())
        whole.update(item.digest or hashlib.sha256(item.input.encode()).digest())
    return whole.digest()


def _update_held(
    connection: sqlite3.Connection, lease: ItemLease, assignments: str, *values: object
) -> bool:
    """Change the item of ``lease``; false, and nothing is changed, where the lease does not hold."""
    cursor = connection.execute(
        f"UPDATE job_items SET {assignments} WHERE {_HELD}",
        (*values, lease.job, lease.ordinal, lease.token),
    )
    return cursor.rowcount == 1


def _end_equals(
    connection: sqlite3.Connection, number: int, ordinal: int, state: str, code: str, now: float
) -> None:
    """Give the items equal to this one its outcome."""
    connection.execute(
        "UPDATE job_items SET state = ?, code = ?, finished = ? WHERE job = ? AND same_as = ?",
        (state, code, now, number, ordinal),
    )


def _settle(connection: sqlite3.Connection, number: int, *, now: float) -> None:
    """End a job none of whose items is left to work."""
    left = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM job_items WHERE job = :job AND state = 'queued') OR "
        "EXISTS (SELECT 1 FROM job_items WHERE job = :job AND state = 'leased')",
        {"job": number},
    ).fetchone()[0]
    if not left:
        connection.execute(
            "UPDATE jobs SET finished = ?, state = CASE WHEN EXISTS (SELECT 1 FROM job_items "
            "WHERE job = jobs.number AND state = 'done') THEN 'done' ELSE 'failed' END "
            f"WHERE number = ? AND {_OPEN}",
            (now, number),
        )


def _as_text(error: ItemError) -> str:
    return json.dumps(asdict(error), ensure_ascii=False)


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

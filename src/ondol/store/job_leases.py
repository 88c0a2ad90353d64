"""Taking items, and giving back what became of them: the statements behind ``JobStore``.

Whoever takes an item gets a token, and only with the current token is a result taken; so an item
that two have worked still ends once. Each function runs inside the caller's write transaction;
times are Unix seconds.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from ondol.store.job_rows import ItemError, Lease

SUSPECT = 2
"""So many times lost, an item may be what kills the process."""

WORKER_DIED = ItemError(
    code="worker_died",
    message="the process ended each time while this item was under way",
    hint="look for what ended it in the system's log (out of memory?); then resume the job",
)
_HELD = "job = (SELECT number FROM jobs WHERE id = ?) AND ordinal = ? AND state = 'leased' AND lease_token = ?"


def claim(
    connection: sqlite3.Connection,
    job: str,
    *,
    limit: int,
    now: float,
    seconds: float,
    suspects: bool,
) -> list[Lease]:
    """Take up to ``limit`` items of ``job``, neighbours in prefix order; suspects only if asked."""
    found = connection.execute(
        "SELECT number, task, tenant FROM jobs WHERE id = ? AND state IN ('queued', 'running')",
        (job,),
    ).fetchone()
    if found is None:
        return []
    number, task, tenant = found
    lost = f"losses >= {SUSPECT}" if suspects else f"losses < {SUSPECT}"
    rows = connection.execute(
        "UPDATE job_items SET state = 'leased', lease_token = lower(hex(randomblob(12))), "
        "lease_until = ?, started = coalesce(started, ?) WHERE job = ? AND ordinal IN ("
        "SELECT ordinal FROM job_items WHERE job = ? AND state = 'queued' AND same_as IS NULL "
        f"AND not_before <= ? AND {lost} ORDER BY prefix_key, ordinal LIMIT ?) "
        "RETURNING prefix_key, ordinal, id, input, lease_token, attempts, losses, refused_since",
        (now + seconds, now, number, number, now, limit),
    ).fetchall()
    if rows:
        connection.execute(
            "UPDATE jobs SET state = 'running', started = coalesce(started, ?), "
            "resumed = coalesce(resumed, ?) WHERE number = ?",
            (now, now, number),
        )
    return [
        Lease(job, ordinal, name, task, tenant, given, token, now + seconds, *history)
        for _, ordinal, name, given, token, *history in sorted(rows, key=lambda row: row[:2])
    ]


def renew(connection: sqlite3.Connection, leases: Sequence[Lease], *, until: float) -> set[str]:
    """Prolong ``leases`` and return the tokens that still hold."""
    return {
        lease.token
        for lease in leases
        if connection.execute(
            f"UPDATE job_items SET lease_until = ? WHERE {_HELD}",
            (until, lease.job, lease.ordinal, lease.token),
        ).rowcount
    }


def finish(connection: sqlite3.Connection, lease: Lease, result: str, *, now: float) -> bool:
    """Take the result of an item and of those equal to it; false where the lease does not hold."""
    taken = connection.execute(
        "UPDATE job_items SET state = 'done', code = '', error = NULL, result = ?, finished = ?, "
        f"attempts = attempts + 1, lease_token = NULL, lease_until = NULL WHERE {_HELD}",
        (result, now, lease.job, lease.ordinal, lease.token),
    ).rowcount
    if taken:
        _end_equals(connection, lease, "done", "", now)
    return bool(taken)


def fail(
    connection: sqlite3.Connection,
    lease: Lease,
    error: ItemError,
    *,
    now: float,
    retry_at: float | None,
) -> bool:
    """Note a failed attempt: the item waits until ``retry_at``, or has failed for good."""
    state, finished = ("failed", now) if retry_at is None else ("queued", None)
    taken = connection.execute(
        "UPDATE job_items SET state = ?, code = ?, error = ?, finished = ?, not_before = ?, "
        "attempts = attempts + 1, refused_since = NULL, lease_token = NULL, lease_until = NULL "
        f"WHERE {_HELD}",
        (
            *(state, error.code, as_text(error), finished, retry_at or 0.0),
            *(lease.job, lease.ordinal, lease.token),
        ),
    ).rowcount
    if taken and retry_at is None:
        _end_equals(connection, lease, "failed", error.code, now)
    return bool(taken)


def give_back(
    connection: sqlite3.Connection, lease: Lease, *, not_before: float, refused_at: float | None
) -> bool:
    """Put an item back as if it had not been taken; ``refused_at`` is when it was refused."""
    return bool(
        connection.execute(
            "UPDATE job_items SET state = 'queued', not_before = ?, lease_token = NULL, "
            "lease_until = NULL, refused_since = CASE WHEN ? IS NULL THEN refused_since "
            f"ELSE coalesce(refused_since, ?) END WHERE {_HELD}",
            (not_before, refused_at, refused_at, lease.job, lease.ordinal, lease.token),
        ).rowcount
    )


def reclaim(
    connection: sqlite3.Connection, *, now: float, everything: bool, crashes: int
) -> list[int]:
    """Put back the items nobody works any more; return the numbers of their jobs.

    Those are all that are taken, or only those whose lease has run out. One that was lost
    ``crashes`` times has failed.
    """
    bound = float("inf") if everything else now
    lost = connection.execute(
        "SELECT job, ordinal, losses FROM job_items WHERE state = 'leased' AND lease_until <= ?",
        (bound,),
    ).fetchall()
    for number, ordinal, losses in lost:
        given_up = losses + 1 >= crashes
        connection.execute(
            "UPDATE job_items SET state = ?, code = ?, error = ?, finished = ?, losses = ?, "
            "lease_token = NULL, lease_until = NULL WHERE job = ? AND ordinal = ?",
            (
                *(("failed", WORKER_DIED.code, as_text(WORKER_DIED), now) if given_up else _QUEUED),
                *(losses + 1, number, ordinal),
            ),
        )
        if given_up:
            _end_equals_of(connection, number, ordinal, "failed", WORKER_DIED.code, now)
    return sorted({number for number, _, _ in lost})


_QUEUED = ("queued", "", None, None)


def settle(connection: sqlite3.Connection, number: int, *, now: float) -> bool:
    """End a job none of whose items is left to work; return whether it has ended."""
    left = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM job_items WHERE job = :job AND state = 'queued') OR "
        "EXISTS (SELECT 1 FROM job_items WHERE job = :job AND state = 'leased')",
        {"job": number},
    ).fetchone()[0]
    if left:
        return False
    return bool(
        connection.execute(
            "UPDATE jobs SET finished = ?, state = CASE WHEN EXISTS (SELECT 1 FROM job_items "
            "WHERE job = jobs.number AND state = 'done') THEN 'done' ELSE 'failed' END "
            "WHERE number = ? AND state IN ('queued', 'running')",
            (now, number),
        ).rowcount
    )


def number_of(connection: sqlite3.Connection, job: str) -> int:
    """Return the row number of a job that is known to exist."""
    number: int = connection.execute("SELECT number FROM jobs WHERE id = ?", (job,)).fetchone()[0]
    return number


def as_text(error: ItemError) -> str:
    return json.dumps(asdict(error), ensure_ascii=False)


def _end_equals(
    connection: sqlite3.Connection, lease: Lease, state: str, code: str, now: float
) -> None:
    number = number_of(connection, lease.job)
    _end_equals_of(connection, number, lease.ordinal, state, code, now)


def _end_equals_of(
    connection: sqlite3.Connection, number: int, ordinal: int, state: str, code: str, now: float
) -> None:
    connection.execute(
        "UPDATE job_items SET state = ?, code = ?, finished = ? WHERE job = ? AND same_as = ?",
        (state, code, now, number, ordinal),
    )

"""Cancelling a job, taking it up again, and removing it: the statements behind ``JobStore``.

Each function runs inside the caller's write transaction; times are Unix seconds.
"""

from __future__ import annotations

import sqlite3

from ondol.core.errors import Conflict
from ondol.store.job_rows import JobRow


def cancel(connection: sqlite3.Connection, number: int, *, now: float) -> None:
    """End an open job; what is under way loses its lease."""
    connection.execute(
        "UPDATE job_items SET state = 'cancelled', finished = ?, lease_token = NULL, "
        "lease_until = NULL WHERE job = ? AND state IN ('queued', 'leased')",
        (now, number),
    )
    connection.execute(
        "UPDATE jobs SET state = 'cancelled', finished = ? WHERE number = ?", (now, number)
    )


def resume(connection: sqlite3.Connection, number: int, *, failed: bool, now: float) -> int:
    """Queue cancelled items again, and ``failed`` ones, except those that never were readable."""
    wanted = "('cancelled', 'failed')" if failed else "('cancelled')"
    items = connection.execute(
        "UPDATE job_items SET state = 'queued', code = '', error = NULL, finished = NULL, "
        "attempts = 0, losses = 0, not_before = 0, refused_since = NULL "
        f"WHERE job = ? AND state IN {wanted} AND (input <> '' OR same_as IS NOT NULL)",
        (number,),
    ).rowcount
    if items:
        connection.execute(
            "UPDATE jobs SET state = 'queued', finished = NULL, resumed = ? "
            "WHERE number = ? AND state NOT IN ('queued', 'running')",
            (now, number),
        )
    return items


def doom(connection: sqlite3.Connection, number: int, row: JobRow) -> None:
    """Make an ended job be gone for everybody; raises ``Conflict`` while it is open."""
    if row.finished is None:
        raise Conflict(f"job {row.id} is {row.state}", hint="cancel it first", code="job_open")
    connection.execute("UPDATE jobs SET doomed = 1 WHERE number = ?", (number,))


def prune(connection: sqlite3.Connection, *, before: float, at_most: int) -> int:
    """Remove about ``at_most`` rows of jobs that are doomed or ended before; return how many."""
    connection.execute("UPDATE jobs SET doomed = 1 WHERE finished < ? AND NOT doomed", (before,))
    found = connection.execute(
        "SELECT number FROM jobs WHERE doomed ORDER BY number LIMIT 1"
    ).fetchone()
    if found is None:
        return 0
    gone = connection.execute(
        "DELETE FROM job_items WHERE rowid IN (SELECT rowid FROM job_items WHERE job = ? LIMIT ?)",
        (found[0], at_most),
    ).rowcount
    if gone < at_most:
        connection.execute("DELETE FROM jobs WHERE number = ?", found)
    return gone + 1

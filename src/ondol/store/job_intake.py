"""Handing a job in: what it is told apart by, whether there is room, and the rows it becomes.

Each function runs inside the transaction of ``JobStore.create``.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Any

from ondol.core.errors import Conflict, InvalidInput, Overloaded
from ondol.store.job_leases import as_text
from ondol.store.job_rows import JobRow, NewItem, NewJob

COLUMNS = (
    "id, task, tenant, state, priority, key, request_id, total, created, started, resumed, finished"
)
"""The columns of a ``JobRow``, in its order."""


def with_key(connection: sqlite3.Connection, job: NewJob, digest: bytes) -> JobRow | None:
    """Return the job this tenant gave the same key; raises ``Conflict`` where it holds other work."""
    found = connection.execute(
        f"SELECT digest, {COLUMNS} FROM jobs WHERE tenant = ? AND key = ? AND NOT doomed",
        (job.tenant, job.key),
    ).fetchone()
    if found is None:
        return None
    if found[0] != digest:
        raise Conflict(
            f"the key {job.key[:80]!r} belongs to job {found[1]}, which holds other work",
            hint="choose another key for another job",
            code="key_used",
            param="key",
        )
    return JobRow(*found[1:])


def require_room(
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
        "ON i.job = j.number WHERE j.state IN ('queued', 'running') "
        "AND i.state IN ('queued', 'leased')",
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


def item_rows(number: int, job: NewJob, items: Sequence[NewItem]) -> list[tuple[Any, ...]]:
    """Return the rows of ``items``; one equal to an earlier one names it and keeps no input."""
    first: dict[bytes, int] = {}
    rows = []
    for ordinal, item in enumerate(items):
        same_as = None
        if item.error is None:
            same_as = first.setdefault(item.digest, ordinal)
            same_as = None if same_as == ordinal else same_as
        ended = (
            ("queued", "", None) if item.error is None else ("failed", item.error.code, job.created)
        )
        error = None if item.error is None else as_text(item.error)
        given = "" if same_as is not None else item.input
        identity = (number, ordinal, item.id, item.digest, item.prefix_key, same_as)
        rows.append((*identity, *ended, given, error))
    return rows


def digest_of(job: NewJob, items: Sequence[NewItem]) -> bytes:
    """Return what is equal for jobs of the same task with the same items in the same order."""
    whole = hashlib.sha256(job.task.encode())
    for item in items:
        whole.update(len(item.id.encode()).to_bytes(4, "big") + item.id.encode())
        whole.update(item.digest or hashlib.sha256(item.input.encode()).digest())
    return whole.digest()

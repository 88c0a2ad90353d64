"""The tables of jobs, and what their rows say: a job, its items, leases and results, all frozen.

Inputs and results are JSON texts that nothing here reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ondol.store.migrations import Migration

# Equal items of a job are worked once: the others name the first in ``same_as`` and have no result
# of their own. A job that is ``doomed`` is gone for everybody; its rows go bit by bit.
_TABLES = (
    """
    CREATE TABLE jobs(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        task TEXT NOT NULL,
        tenant TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'cancelled', 'failed')),
        priority INTEGER NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        request_id TEXT NOT NULL,
        total INTEGER NOT NULL CHECK (total > 0),
        created REAL NOT NULL,
        started REAL,
        resumed REAL,
        finished REAL,
        doomed INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE UNIQUE INDEX jobs_by_key ON jobs(tenant, key) WHERE key <> '' AND NOT doomed",
    "CREATE INDEX jobs_open ON jobs(number) WHERE state IN ('queued', 'running')",
    """
    CREATE TABLE job_items(
        job INTEGER NOT NULL REFERENCES jobs(number) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        id TEXT NOT NULL,
        digest BLOB NOT NULL,
        prefix_key TEXT NOT NULL,
        same_as INTEGER,
        state TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'done', 'failed', 'cancelled')),
        code TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        losses INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0,
        refused_since REAL,
        lease_until REAL,
        lease_token TEXT,
        started REAL,
        finished REAL,
        input TEXT NOT NULL,
        result TEXT,
        error TEXT,
        PRIMARY KEY (job, ordinal)
    )
    """,
    "CREATE INDEX job_items_by_state ON job_items(job, state, code, same_as)",
    """
    CREATE INDEX job_items_next ON job_items(job, prefix_key, ordinal)
        WHERE state = 'queued' AND same_as IS NULL
    """,
    "CREATE INDEX job_items_leased ON job_items(lease_until) WHERE state = 'leased'",
    "CREATE INDEX job_items_equal ON job_items(job, same_as) WHERE same_as IS NOT NULL",
    """
    CREATE INDEX job_items_ended ON job_items(job, finished)
        WHERE finished IS NOT NULL AND same_as IS NULL
    """,
)
MIGRATIONS = (Migration(6, _TABLES),)

JobState = Literal["queued", "running", "done", "cancelled", "failed"]
ItemState = Literal["queued", "leased", "done", "failed", "cancelled"]
Outcome = Literal["done", "failed", "cancelled"]

OPEN: tuple[JobState, ...] = ("queued", "running")
ENDED: tuple[JobState, ...] = ("done", "cancelled", "failed")
OUTCOMES: tuple[Outcome, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an item has no result: a stable word, what happened, the remedy."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item as it is handed in. ``digest`` is equal for equal work; with ``error`` it has failed
    before it was tried."""

    id: str
    input: str
    digest: bytes = b""
    prefix_key: str = ""
    error: ItemError | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as it is handed in. ``tenant`` owns it; ``key`` (if any) makes handing it in twice one.

    ``created`` is Unix seconds; ``priority`` above 0 goes before others.
    """

    id: str
    task: str
    created: float
    tenant: str = ""
    priority: int = 0
    key: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it stands. ``resumed`` is when somebody last began to work it."""

    id: str
    task: str
    tenant: str
    state: JobState
    priority: int
    key: str
    request_id: str
    total: int
    created: float
    started: float | None
    resumed: float | None
    finished: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """A job's items by state; ``errors`` counts those that failed by their code.

    ``work`` is how many differ from each other and have no outcome yet.
    """

    queued: int = 0
    leased: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    work: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job with work left, as who chooses among jobs sees it; ``leased`` items are under way."""

    id: str
    tenant: str
    priority: int
    created: float
    leased: int


@dataclass(frozen=True, slots=True)
class ItemLease:
    """The right to work one item until ``until`` (Unix seconds), for who holds ``token``.

    ``attempts`` have failed before, ``losses`` were never heard of again; ``refused_since`` is when
    the item was first refused since its last attempt.
    """

    job: str
    ordinal: int
    id: str
    task: str
    tenant: str
    input: str
    token: str
    until: float
    attempts: int
    losses: int
    refused_since: float | None


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One item's outcome. ``same_as`` is the ordinal of the equal item that was worked for both."""

    ordinal: int
    id: str
    state: ItemState
    attempts: int
    result: str | None
    error: ItemError | None
    started: float | None
    finished: float | None
    same_as: int | None

"""What the store says of jobs: the rows of a job, its items, leases and results, all frozen.

Inputs and results are JSON texts that the store does not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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
class Lease:
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

"""Jobs made to order, over a database of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ondol.app.store_assembly import MIGRATIONS
from ondol.core.clock import ManualClock
from ondol.jobs.job_rows import ItemError, ItemLease, NewItem, NewJob
from ondol.jobs.job_store import JobStore
from ondol.store.database import Database

NOW = 1_000.0
ROOM = 10_000


def open_jobs_store(home: Path) -> tuple[Database, JobStore]:
    database = Database(home / "ondol.db", migrations=MIGRATIONS, clock=ManualClock(NOW))
    return database, JobStore(database)


def items(*texts: str, prefix: str = "") -> list[NewItem]:
    """One item a text; equal texts are equal work, and ``!`` was never usable."""
    return [
        NewItem(f"i{n}", "", error=ItemError("malformed_json", "no"))
        if text == "!"
        else NewItem(f"i{n}", f'"{text}"', digest=text.encode(), prefix_key=prefix or text[:1])
        for n, text in enumerate(texts)
    ]


def hand_in(store: JobStore, name: str, *texts: str, **fields: str | int) -> str:
    job = NewJob(name, "t", NOW, **fields)  # type: ignore[arg-type]
    return store.create(job, items(*texts), most_queued=ROOM).id


def take(store: JobStore, job: str, limit: int = 1, *, now: float = NOW) -> list[ItemLease]:
    return store.claim(job, limit=limit, now=now, seconds=60.0)


def ids(leases: Sequence[ItemLease]) -> list[str]:
    return [lease.id for lease in leases]

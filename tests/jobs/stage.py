"""A runner and a service over fake work, on a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.app.store_assembly import MIGRATIONS
from ondol.core.clock import ManualClock
from ondol.core.settings.operation_sections import JobSettings
from ondol.core.timers import ManualTimers
from ondol.jobs.feed import JobFeed
from ondol.jobs.intake import SubmittedItem
from ondol.jobs.job_results import JobView
from ondol.jobs.job_service import JobService
from ondol.jobs.job_store import JobStore
from ondol.jobs.runner import JobRunner, RunnerEnvironment, RunnerLock
from ondol.jobs.work import FAKE_TASK, FakeWork
from ondol.runtime.interactive_traffic import InteractiveTraffic
from ondol.store.database import Database

SETTINGS = JobSettings(poll_seconds=1.0, backoff_seconds=2.0, concurrency=3, give_way_seconds=30.0)


@dataclass
class Stage:
    """One process on a home. ``busy`` is what the generator's other lanes are."""

    home: Path
    work: FakeWork
    settings: JobSettings = SETTINGS
    clock: ManualClock = field(default_factory=lambda: ManualClock(1000.0))
    feed: JobFeed = field(default_factory=JobFeed)
    busy: bool = False

    def __post_init__(self) -> None:
        self.traffic = InteractiveTraffic(inside=lambda: int(self.busy), clock=self.clock)
        self.timers = ManualTimers(self.clock)
        self.database = Database(self.home / "ondol.db", migrations=MIGRATIONS, clock=self.clock)
        self.store = JobStore(self.database)
        self.service = JobService(
            self.store, self.work, settings=self.settings, clock=self.clock, feed=self.feed
        )
        self.runner = self.new_runner()

    def new_runner(self, *, only: str | None = None) -> JobRunner:
        return JobRunner(
            self.store,
            self.work,
            settings=self.settings,
            lock=RunnerLock(self.home),
            around=RunnerEnvironment(self.clock, self.timers, self.feed, self.traffic, lambda: 0.0),
            only=only,
        )

    async def submit(self, *texts: str, shared: str = "", **options: Any) -> str:
        given = [SubmittedItem(input={"text": text, "shared": shared}) for text in texts]
        return (await self.service.submit(FAKE_TASK, given, **options)).id

    async def until(self, true: Callable[[], bool]) -> None:
        """Let everything that is due happen until ``true``; the clock stands."""
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.001)

    async def rests(self) -> None:
        """Wait until the runner has looked for work and waits for its timer."""
        self.runner.wake()
        before = self.timers.pending
        await self.until(lambda: self.timers.pending >= max(1, before))
        for _ in range(5):
            await asyncio.sleep(0.002)

    async def ended(self, job: str, *, step: float = 0.5) -> JobView:
        """Move the clock until the job has ended."""
        async with asyncio.timeout(20):
            while (view := await self.service.show(job)).finished is None:
                self.timers.advance(step)
                await asyncio.sleep(0.001)
        return view

    def close(self) -> None:
        self.database.close()


@asynccontextmanager
async def staged(home: Path, *, start: bool = True, **fields: Any) -> AsyncIterator[Stage]:
    """Yield a stage whose runner works, and end both."""
    stage = Stage(home, fields.pop("work", None) or FakeWork(), **fields)
    if start:
        stage.runner.start()
    try:
        yield stage
    finally:
        if stage.work.gate is not None:
            stage.work.gate.set()
        await stage.runner.close()
        stage.close()

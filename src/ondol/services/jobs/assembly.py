"""Jobs of one process put together: the service everybody asks, and the runner that works."""

from __future__ import annotations

import random
from functools import cached_property
from pathlib import Path

from ondol.core.clock import Clock
from ondol.core.job_section import JobSettings
from ondol.core.timers import LoopTimers
from ondol.services.interactive_traffic import InteractiveTraffic
from ondol.services.jobs.feed import JobFeed
from ondol.services.jobs.runner import JobRunner, Surroundings
from ondol.services.jobs.runner_lock import RunnerLock
from ondol.services.jobs.service import JobService
from ondol.services.jobs.work import Work
from ondol.store.job_store import JobStore


class Jobs:
    """``traffic`` says whether people use this process: jobs give way to them."""

    def __init__(
        self,
        store: JobStore,
        work: Work,
        *,
        home: Path,
        settings: JobSettings,
        clock: Clock,
        feed: JobFeed,
        traffic: InteractiveTraffic,
    ) -> None:
        self._store = store
        self._work = work
        self._home = home
        self._settings = settings
        self._clock = clock
        self._feed = feed
        self._traffic = traffic

    @cached_property
    def service(self) -> JobService:
        return JobService(
            self._store, self._work, settings=self._settings, clock=self._clock, feed=self._feed
        )

    def runner(self, *, only: str | None = None) -> JobRunner:
        """Return a runner, not started; with ``only`` it works that job alone."""
        return JobRunner(
            self._store,
            self._work,
            settings=self._settings,
            lock=RunnerLock(self._home),
            around=Surroundings(
                clock=self._clock,
                timers=LoopTimers(),
                feed=self._feed,
                traffic=self._traffic,
                chance=random.random,
            ),
            only=only,
        )

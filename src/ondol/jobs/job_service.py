"""Jobs for everybody who asks: hand in, list, look, follow, read results, cancel, resume, forget.

Works on the store alone, so that any process of a home can do all of it; who works the items is the
runner's affair. A ``tenant`` sees its own jobs only; ``None`` sees all.

Jobs of one process put together: the service everybody asks, and the runner that works.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput
from ondol.core.settings.operation_sections import JobSettings
from ondol.core.timers import LoopTimers
from ondol.jobs.feed import JobFeed
from ondol.jobs.intake import SubmittedItem, prepared
from ondol.jobs.job_results import (
    MOST_COLUMNS,
    CsvRows,
    JobView,
    ResultFormat,
    json_lines,
    pages,
    rate_of,
    view_of,
)
from ondol.jobs.job_rows import OUTCOMES, ItemResult, JobRow, NewJob, Outcome
from ondol.jobs.job_store import JobStore
from ondol.jobs.runner import JobRunner, RunnerEnvironment, RunnerLock
from ondol.jobs.work import Work
from ondol.runtime.interactive_traffic import InteractiveTraffic

MOST_PRIORITY = 100
LONGEST_KEY = 200


class JobService:
    """The jobs in ``store``; ``work`` checks what is handed in."""

    def __init__(
        self, store: JobStore, work: Work, *, settings: JobSettings, clock: Clock, feed: JobFeed
    ) -> None:
        self._store = store
        self._work = work
        self._settings = settings
        self._clock = clock
        self._feed = feed

    async def submit(
        self,
        task: str,
        items: Iterable[SubmittedItem],
        *,
        tenant: str = "",
        share: float = 1.0,
        priority: int = 0,
        key: str = "",
        request_id: str = "",
    ) -> JobView:
        """Hand in a job; when this returns it is on disk, and unusable items have failed in it.

        ``key`` makes handing in the same job twice one job. ``share`` is the tenant's part of
        ``jobs.max_queued_items``. Raises as ``intake.prepared`` and ``JobStore.create``.
        """
        _check(priority, key)
        row = await asyncio.to_thread(
            self._create,
            task,
            items,
            NewJob(
                id=f"job-{secrets.token_hex(8)}",
                task=task,
                created=self._clock.wall(),
                tenant=tenant,
                priority=priority,
                key=key,
                request_id=request_id,
            ),
            share,
        )
        self._feed.submitted(row.id)
        return await self.show(row.id, tenant=tenant)

    async def show(self, job: str, *, tenant: str | None = None) -> JobView:
        """Return a job as it is now."""
        return await asyncio.to_thread(self._view, job, tenant)

    async def list(
        self, *, tenant: str | None = None, limit: int = 100, after: str | None = None
    ) -> Sequence[JobView]:
        """Return jobs, newest first, those older than the job ``after``."""
        return await asyncio.to_thread(self._views, tenant, limit, after)

    async def cancel(self, job: str, *, tenant: str | None = None) -> JobView:
        """Stop a job; what is done stays. One that has ended is returned as it is."""
        row = await asyncio.to_thread(
            partial(self._store.cancel, job, tenant=tenant, now=self._clock.wall())
        )
        self._feed.cancelled(row.id)
        return await self.show(job, tenant=tenant)

    async def resume(self, job: str, *, tenant: str | None = None, failed: bool = False) -> JobView:
        """Queue what was cancelled again, and with ``failed`` what failed; an open job goes on."""
        await asyncio.to_thread(
            partial(self._store.resume, job, tenant=tenant, failed=failed, now=self._clock.wall())
        )
        self._feed.submitted(job)
        return await self.show(job, tenant=tenant)

    async def delete(self, job: str, *, tenant: str | None = None) -> None:
        """Remove an ended job with its inputs and results; raises ``Conflict`` while it is open."""
        await asyncio.to_thread(partial(self._store.doom, job, tenant=tenant))
        self._feed.changed(job)
        while await asyncio.to_thread(partial(self._store.prune, before=0.0)):
            pass

    async def events(
        self, job: str, *, tenant: str | None = None, steady: bool = False
    ) -> AsyncGenerator[JobView]:
        """Yield the job now and whenever it has changed, until it has ended or the process goes.

        ``steady`` yields it every ``jobs.poll_seconds`` too: estimates change by themselves.
        """
        told: JobView | None = None
        with self._feed.watching(job) as news:
            while True:
                news.clear()
                view = await self.show(job, tenant=tenant)
                if steady or view.without_estimates() != told:
                    told = view.without_estimates()
                    yield view
                if view.finished is not None or self._feed.closed:
                    return
                with suppress(TimeoutError):  # another process's changes are not in the feed
                    async with asyncio.timeout(self._settings.poll_seconds):
                        await news.wait()

    async def results(
        self,
        job: str,
        *,
        tenant: str | None = None,
        format: ResultFormat = "jsonl",
        after: int = -1,
        limit: int | None = None,
        states: Sequence[Outcome] = OUTCOMES,
    ) -> AsyncGenerator[str]:
        """Yield the outcomes there are as text, a page at a time, by ordinal from after ``after``."""
        read = partial(self._store.results, job, tenant=tenant, states=states)
        found = pages(lambda after, limit: read(after=after, limit=limit), after=after, limit=limit)
        render: Callable[[Sequence[ItemResult]], str] = json_lines
        await self.show(job, tenant=tenant)
        if format == "csv":
            keys = await asyncio.to_thread(
                partial(self._store.result_keys, job, tenant=tenant, most=MOST_COLUMNS)
            )
            table = CsvRows(keys)
            render = table.rows
            yield table.head
        while text := await asyncio.to_thread(_next_page, found, render):
            yield text

    def _create(
        self, task: str, items: Iterable[SubmittedItem], job: NewJob, share: float
    ) -> JobRow:
        ready = prepared(task, items, work=self._work, settings=self._settings)
        return self._store.create(
            job, ready, most_queued=self._settings.max_queued_items, share=share
        )

    def _view(self, job: str, tenant: str | None) -> JobView:
        return self._seen([self._store.get(job, tenant=tenant)])[0]

    def _views(self, tenant: str | None, limit: int, after: str | None) -> Sequence[JobView]:
        return self._seen(self._store.recent(tenant=tenant, limit=limit, after=after))

    def _seen(self, rows: Sequence[JobRow]) -> Sequence[JobView]:
        tallies = self._store.tallies([row.id for row in rows])
        return [view_of(row, tallies[row.id], rate=self._rate(row)) for row in rows]

    def _rate(self, row: JobRow) -> float | None:
        if row.finished is not None or row.started is None:
            return None
        since = max(row.started, row.resumed or 0.0)
        count, first = self._store.pace(row.id, since=since)
        return rate_of(count, first, since=since, now=self._clock.wall())


def _next_page(
    found: Iterator[Sequence[ItemResult]], render: Callable[[Sequence[ItemResult]], str]
) -> str:
    page = next(found, None)
    return "" if page is None else render(page)


def _check(priority: int, key: str) -> None:
    if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        raise InvalidInput(
            f"priority is {priority}, it is from -{MOST_PRIORITY} to {MOST_PRIORITY}",
            hint="0 is ordinary, higher goes first",
            param="priority",
        )
    if len(key) > LONGEST_KEY or not (key.isprintable() or not key):
        raise InvalidInput(
            f"key has {len(key)} characters, or some that cannot be printed",
            hint=f"send up to {LONGEST_KEY} printable characters",
            param="key",
        )


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
            around=RunnerEnvironment(
                clock=self._clock,
                timers=LoopTimers(),
                feed=self._feed,
                traffic=self._traffic,
                chance=random.random,
            ),
            only=only,
        )

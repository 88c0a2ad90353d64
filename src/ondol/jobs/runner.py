"""Works the items of all jobs of a home in the background: takes, runs, ends, tries again.

One runner a home works at a time (``RunnerLock``); another stands by. Takes no more than runs at
once, so what a crash undoes is bounded by ``jobs.concurrency`` items, and they are taken up again
at the next start. Owns its tasks and its pause; used on one event loop.

One process at a time works the jobs of a home.

An advisory ``flock``: the kernel drops it when the holder ends, however it ends. So who gets it
knows that every item still marked as taken was left by a process that is gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from ondol.core.clock import Clock
from ondol.core.errors import OndolError
from ondol.core.private_files import private_file
from ondol.core.settings.operation_sections import JobSettings
from ondol.core.timers import Timers
from ondol.jobs.attempt import RetryLater, RetryNow, attempt, judge
from ondol.jobs.feed import JobFeed
from ondol.jobs.job_rows import ItemLease
from ondol.jobs.job_store import SUSPECT, JobStore
from ondol.jobs.job_throttle import JobThrottle, in_turn, share_of
from ondol.jobs.work import Work
from ondol.runtime.interactive_traffic import InteractiveTraffic
from ondol.telemetry.readings import JobFigures

NAME = "jobs.lock"


class RunnerLock:
    """The lock of the home at ``home``. Not for more than one thread."""

    def __init__(self, home: Path) -> None:
        self._path = home / NAME
        self._file: TextIO | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def take(self) -> bool:
        """Take it if nobody has it; returns at once, and whether it is ours."""
        if self._file is not None:
            return True
        private_file(self._path)
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except BaseException:
            file.close()
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Let the next have it. Later calls do nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None


_log = logging.getLogger("ondol.jobs")

_LIVES = 6
"""So often a lease is renewed before it could run out."""
_PRUNE_SECONDS = 3600.0
_DAY = 86400.0
_SHOWN = ("queued", "leased", "done", "failed")


@dataclass(frozen=True, slots=True)
class RunnerEnvironment:
    """What a runner takes from its process. ``traffic`` says whether people are there, to whom it
    gives way; ``chance`` draws from [0, 1)."""

    clock: Clock
    timers: Timers
    feed: JobFeed
    traffic: InteractiveTraffic
    chance: Callable[[], float]


class JobRunner:
    """Works what ``store`` holds by ``work``; with ``only`` that job alone."""

    def __init__(
        self,
        store: JobStore,
        work: Work,
        *,
        settings: JobSettings,
        lock: RunnerLock,
        around: RunnerEnvironment,
        only: str | None = None,
    ) -> None:
        self._store = store
        self._work = work
        self._settings = settings
        self._lock = lock
        self._around = around
        self._clock = around.clock
        self._only = only
        self._courtesy = JobThrottle(settings.give_way_seconds)
        self._running: dict[asyncio.Task[None], ItemLease] = {}
        self._turns: dict[str, int] = {}
        self._attempts = Counter[tuple[str, str]]()
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._pruning: asyncio.Task[None] | None = None
        self._stopping = False
        self._refusals = 0
        self._paused_until = self._tend_at = self._prune_at = float("-inf")

    @property
    def working(self) -> bool:
        """Whether this is the one that works; another process may be."""
        return self._lock.held

    @property
    def running(self) -> int:
        """How many items are under way here."""
        return len(self._running)

    def figures(self) -> JobFigures:
        """Return what is to do and what was done since the start; reads the store, any thread."""
        items, oldest = self._store.backlog()
        return JobFigures(
            items={state: items.get(state, 0) for state in _SHOWN},
            oldest_seconds=0.0 if oldest is None else max(0.0, self._clock.wall() - oldest),
            attempts=self._attempts.copy(),
            flags={
                "working": self._lock.held,
                "paused": self._clock.monotonic() < self._paused_until,
                "shed": self._around.traffic.shed,
            },
        )

    def start(self) -> None:
        """Begin, now or as soon as no other process works this home's jobs."""
        self._around.feed.attach(wake=self.wake, drop=self._drop)
        self._loop = asyncio.create_task(self._run(), name="ondol-jobs")

    def wake(self) -> None:
        """Look for work now."""
        self._woken.set()

    async def drain(self, seconds: float) -> None:
        """Begin nothing more; let what runs end within ``seconds``."""
        await self._stop()
        self._around.feed.close()
        if self._running:
            await asyncio.wait(list(self._running), timeout=seconds)

    async def close(self) -> None:
        """Stop what runs and put its items back; returns when that is on disk."""
        await self._stop()
        self._around.feed.close()
        tasks = dict(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks and self._lock.held:
            await self._quietly(partial(self._store.give_back, list(tasks.values())))
        if self._pruning is not None:
            await asyncio.gather(self._pruning, return_exceptions=True)
        self._lock.release()

    async def _stop(self) -> None:
        self._stopping = True
        self.wake()
        if self._loop is not None:
            await asyncio.shield(self._loop)  # else what a thread takes meanwhile is lost

    async def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                wait = await self._step()
            except OndolError as error:
                _log.warning("jobs wait: %s", error.message)
                wait = self._settings.poll_seconds
            except Exception:
                _log.exception("jobs wait")
                wait = self._settings.poll_seconds
            timer = self._around.timers.after(max(wait, 0.0), self.wake)
            await self._woken.wait()
            timer.cancel()

    async def _step(self) -> float:
        """Do what is due and begin what may begin; return the seconds until there may be more."""
        if not self._lock.held and not await asyncio.to_thread(self._take_over):
            return self._settings.poll_seconds
        now = self._clock.monotonic()
        if now >= self._tend_at:
            self._tend_at = now + self._settings.lease_seconds / _LIVES
            await self._tend()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_SECONDS
            self._pruning = asyncio.create_task(self._prune(), name="ondol-jobs-prune")
        while not self._stopping and (places := self._places()):
            leases = await asyncio.to_thread(self._take, places, not self._running)
            for lease in leases:
                self._begin(lease)
            if not leases:
                break
        pause = self._paused_until - self._clock.monotonic()
        poll = self._settings.poll_seconds
        return min(poll, pause) if pause > 0 else poll

    def _places(self) -> int:
        now = self._clock.monotonic()
        traffic = self._around.traffic
        running = len(self._running)
        free = self._settings.concurrency - running
        alone = any(lease.losses >= SUSPECT for lease in self._running.values())
        places = self._courtesy.places(
            free=max(free, 0), running=running, last_seen=traffic.last_seen(), now=now
        )
        if alone or now < self._paused_until or traffic.shed:
            return 0
        return places

    # In a thread

    def _take_over(self) -> bool:
        """Become the one that works: what is still marked as taken was left by a process that died."""
        if not self._lock.take():
            return False
        lost = self._store.reclaim(
            now=self._clock.wall(), crashes=self._settings.crashes, everything=True
        )
        if lost:
            _log.warning("%d jobs were under way when a process ended; they go on", lost)
        return True

    def _take(self, places: int, alone: bool) -> list[ItemLease]:
        """Take items of the job whose turn it is; suspects one by one, when nothing else is left."""
        now, seconds = self._clock.wall(), self._settings.lease_seconds
        found = [job for job in self._store.open_jobs() if self._only in (None, job.id)]
        jobs = in_turn(found, self._turns, now=now, age_seconds=self._settings.age_seconds)
        share = share_of(places, jobs)
        for suspects, most in ((False, share), (True, 1)) if alone else ((False, share),):
            for job in jobs:
                taken = self._store.claim(
                    job.id, limit=most, now=now, seconds=seconds, suspects=suspects
                )
                if taken:
                    self._turns[job.tenant] = max(self._turns.values(), default=0) + 1
                    return taken
        return []

    # On the loop

    async def _tend(self) -> None:
        """Renew what runs, stop what was taken away, put back what nobody works."""
        now = self._clock.wall()
        leases = list(self._running.values())
        if leases:
            until = now + self._settings.lease_seconds
            held = await asyncio.to_thread(partial(self._store.renew, leases, until=until))
            for task, lease in list(self._running.items()):
                if lease in leases and lease.token not in held:
                    task.cancel()
        await asyncio.to_thread(
            partial(self._store.reclaim, now=now, crashes=self._settings.crashes)
        )

    async def _prune(self) -> None:
        before = self._clock.wall() - self._settings.retention_days * _DAY
        prune = partial(self._store.prune, before=before)
        try:
            gone = 1
            while gone and not self._stopping:
                gone = await asyncio.to_thread(prune)
        except OndolError as error:
            _log.warning("old jobs stay for now: %s", error.message)

    def _begin(self, lease: ItemLease) -> None:
        task = asyncio.create_task(self._item(lease), name=f"{lease.job}.{lease.ordinal}")
        self._running[task] = lease
        task.add_done_callback(self._ended)
        self._around.feed.changed(lease.job)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.wake()

    def _drop(self, job: str) -> None:
        for task, lease in list(self._running.items()):
            if lease.job == job:
                task.cancel()

    async def _item(self, lease: ItemLease) -> None:
        try:
            text = await attempt(lease, self._work, settings=self._settings)
        except Exception as error:
            outcome, write = self._judged(lease, error)
        else:
            self._refusals = 0
            outcome = "done"
            write = partial(self._store.finish, lease, text, now=self._clock.wall())
        if not await self._quietly(write):
            _log.warning("%s.%d: its outcome was not taken", lease.job, lease.ordinal)
        elif outcome:
            self._attempts[lease.task, outcome] += 1
        self._around.feed.changed(lease.job)

    def _judged(self, lease: ItemLease, error: Exception) -> tuple[str, Callable[[], int]]:
        """Return the attempt's outcome, if it was one, and what writes it down; a refusal pauses all."""
        now = self._clock.wall()
        verdict = judge(
            error,
            lease,
            settings=self._settings,
            now=now,
            streak=self._refusals,
            chance=self._around.chance,
        )
        if isinstance(verdict, RetryLater):
            self._pause(verdict.seconds)
            later = now + verdict.seconds
            return "", partial(self._store.give_back, [lease], not_before=later, refused_at=now)
        retry_at = now + verdict.seconds if isinstance(verdict, RetryNow) else None
        _log.log(
            logging.INFO if retry_at is not None else logging.WARNING,
            "%s.%d failed with %s%s",
            *(lease.job, lease.ordinal, verdict.error.code),
            "" if retry_at is None else ", it is tried again",
        )
        outcome = "failed" if retry_at is None else "retried"
        return outcome, partial(self._store.fail, lease, verdict.error, now=now, retry_at=retry_at)

    def _pause(self, seconds: float) -> None:
        now = self._clock.monotonic()
        if now >= self._paused_until:
            self._refusals += 1
            _log.info("jobs pause for %.1f s: the machine refused an item", seconds)
        self._paused_until = max(self._paused_until, now + seconds)

    async def _quietly(self, call: Callable[[], int]) -> int:
        """Run a store call in a thread; where it fails the lease runs out, and the item goes on."""
        try:
            return await asyncio.to_thread(call)
        except OndolError as error:
            _log.error("a job's item could not be written: %s", error.message)
            return 0

"""Items of measured sizes on a modelled engine with more slots than this machine has use for.

What hands in, takes and ends items is the real thing (``JobService``, ``JobRunner``, ``JobStore`` on
disk); the engine and time are made up. It reads one prompt at a time, in chunks, and gives every
stream that decodes a token between two chunks, as llama.cpp and OpenVINO GenAI do. What is not in it:
embedding, labelling, and prompts read together. Virtual seconds, so minutes take a moment.
"""

from __future__ import annotations

import asyncio
import selectors
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.app.store_assembly import MIGRATIONS
from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.operation_sections import JobSettings
from ondol.core.timers import LoopTimers
from ondol.jobs.feed import JobFeed
from ondol.jobs.intake import SubmittedItem
from ondol.jobs.job_service import JobService
from ondol.jobs.job_store import JobStore
from ondol.jobs.runner import JobRunner, RunnerEnvironment, RunnerLock
from ondol.jobs.work import WorkOutput
from ondol.runtime.interactive_traffic import InteractiveTraffic
from ondol.store.database import Database

CHUNK = 128
_EPOCH = 1.7e9
_INSTANT = 1e-6


@dataclass(frozen=True, slots=True)
class Size:
    """One item before the engine: tokens it has to read, and tokens it answers."""

    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens a second: reading one prompt, and all streams together by how many decode."""

    prefill: float
    together: Mapping[int, float]

    def decode(self, streams: int) -> float:
        """Return tokens a second of all streams; between two measured numbers on a straight line."""
        known = sorted(self.together)
        above = next((one for one in known if one >= streams), known[-1])
        below = max((one for one in known if one <= streams), default=known[0])
        if above == below:
            return self.together[above]
        share = (streams - below) / (above - below)
        return self.together[below] + share * (self.together[above] - self.together[below])


@dataclass(slots=True, eq=False)
class _Stream:
    unread: int
    left: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Engine:
    """Answers at most ``slots`` requests at once; who comes later waits."""

    def __init__(self, rates: Rates, *, slots: int) -> None:
        self._rates = rates
        self._places = asyncio.Semaphore(slots)
        self._streams: list[_Stream] = []
        self._work = asyncio.Event()

    async def answer(self, size: Size) -> None:
        """Return when the answer is whole."""
        async with self._places:
            stream = _Stream(size.prompt, max(1, size.answer))
            self._streams.append(stream)
            self._work.set()
            await stream.ended.wait()

    async def run(self) -> None:
        """Compute until cancelled."""
        while True:
            self._work.clear()
            if not self._streams:
                await self._work.wait()
            await asyncio.sleep(_INSTANT)  # whoever is let in now takes part in the next step
            await self._step()

    async def _step(self) -> None:
        """Read a chunk, one token for the others meanwhile; or decode until the next answer ends."""
        reading = next((one for one in self._streams if one.unread > 0), None)
        decoding = [one for one in self._streams if one.unread <= 0]
        chunk = min(CHUNK, reading.unread) if reading is not None else 0
        times = 1 if reading is not None else min(one.left for one in decoding)
        seconds = chunk / self._rates.prefill
        if decoding:
            seconds += times * len(decoding) / self._rates.decode(len(decoding))
        await asyncio.sleep(seconds)
        if reading is not None:
            reading.unread -= chunk
        for one in decoding:
            one.left -= times
            if one.left <= 0:
                self._streams.remove(one)
                one.ended.set()


class EngineWork:
    """A ``Work`` whose items are sizes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def require(self, task: str) -> None:
        """Every task is there."""

    def validate(self, task: str, input: Mapping[str, Any]) -> None:
        """Every size is well."""

    def prefix_key(self, task: str, input: Mapping[str, Any]) -> str:
        return ""

    async def run(
        self, task: str, input: Mapping[str, Any], *, terms: RequestTerms, timing: Timing
    ) -> WorkOutput:
        await self._engine.answer(Size(input["prompt"], input["answer"]))
        return WorkOutput({})


def simulated(
    sizes: Sequence[Size], rates: Rates, *, slots: Sequence[int]
) -> dict[str, int | float]:
    """Return the seconds of the items one by one, and as one job for each number of slots."""
    alone = _virtually(lambda loop: _one_by_one(loop, sizes, rates))
    figures: dict[str, int | float] = {
        "simulated_items": len(sizes),
        "simulated_prompt_tokens": sum(size.prompt for size in sizes),
        "simulated_answer_tokens": sum(size.answer for size in sizes),
        "simulated_one_by_one_seconds": alone,
    }
    for count in slots:
        together = _virtually(lambda loop, count=count: _as_job(loop, sizes, rates, count))
        figures[f"simulated_job_seconds_{count}"] = together
        figures[f"simulated_speedup_{count}"] = alone / together
    return figures


async def _one_by_one(
    loop: asyncio.AbstractEventLoop, sizes: Sequence[Size], rates: Rates
) -> float:
    engine = Engine(rates, slots=1)
    computing = loop.create_task(engine.run())
    before = loop.time()
    for size in sizes:
        await engine.answer(size)
    computing.cancel()
    return loop.time() - before


async def _as_job(
    loop: asyncio.AbstractEventLoop, sizes: Sequence[Size], rates: Rates, slots: int
) -> float:
    settings = JobSettings(concurrency=slots)
    engine, clock, feed = Engine(rates, slots=slots), _LoopClock(loop), JobFeed()
    computing = loop.create_task(engine.run())
    with tempfile.TemporaryDirectory() as home:
        database = Database(Path(home) / "ondol.db", migrations=MIGRATIONS, clock=clock)
        store, work = JobStore(database), EngineWork(engine)
        service = JobService(store, work, settings=settings, clock=clock, feed=feed)
        nobody = InteractiveTraffic(inside=lambda: 0, clock=clock)
        runner = JobRunner(
            store,
            work,
            settings=settings,
            lock=RunnerLock(Path(home)),
            around=RunnerEnvironment(clock, LoopTimers(), feed, nobody, lambda: 0.5),
        )
        runner.start()
        before = loop.time()
        # Sizes may be equal: the number keeps the items apart, else they are worked once.
        given = [
            SubmittedItem(input={"number": n, "prompt": size.prompt, "answer": size.answer})
            for n, size in enumerate(sizes)
        ]
        job = (await service.submit("simulated", given)).id
        async for view in service.events(job):
            if view.finished is not None and view.done != len(sizes):
                raise SystemExit(f"{view.failed} items of the simulation failed: {view.errors}")
        seconds = loop.time() - before
        await runner.close()
        computing.cancel()
        database.close()
    return seconds


class _Selector(selectors.DefaultSelector):
    """Never waits: where a wait would be, time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("everything waits and nothing is due")
            self.now += max(0.0, timeout)
        return found


class _Loop(asyncio.SelectorEventLoop):
    """An event loop on virtual time. All its work is on its one thread, so none of it is missed."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self.set_default_executor(_InPlace())

    def time(self) -> float:
        return self._virtual.now


class _InPlace(ThreadPoolExecutor):
    """Runs at once what threads would: a store call takes no virtual time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True, slots=True)
class _LoopClock:
    """The loop's time for those who ask a clock."""

    loop: asyncio.AbstractEventLoop

    def monotonic(self) -> float:
        return self.loop.time()

    def wall(self) -> float:
        return _EPOCH + self.loop.time()


def _virtually(scene: Callable[[asyncio.AbstractEventLoop], Any]) -> float:
    loop = _Loop()
    try:
        seconds: float = loop.run_until_complete(scene(loop))
    finally:
        loop.close()
    return seconds

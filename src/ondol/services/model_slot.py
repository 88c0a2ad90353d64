"""One encoder model in service: loaded once however many ask, swapped and unloaded under way.

Owns the ``Batcher`` in front of the encoder it has loaded now. Callers see one lane that stays: a
reload swaps the encoder between two requests and lets the old one finish what it has; an idle model
is unloaded and the next request loads it again. Knows no form and no settings; ``build`` loads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ondol.backends.base import EncoderSpec
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import NotReady
from ondol.core.memory import Growth, LoadGauge, trim
from ondol.core.observe import ModelStateChanged, NullObserver, Observer, Timing
from ondol.core.timers import LoopTimers, Timer, Timers
from ondol.core.types import Encoded, Pair
from ondol.engine.batcher import Batcher, BatcherLimits, BatchResult
from ondol.models.form_choice import FormChoice
from ondol.services.encoder_plan import LoadedEncoder
from ondol.services.slot_info import BatchPolicy, MemoryInfo, SlotInfo, SlotState

_log = logging.getLogger("ondol.slot")

T = TypeVar("T")

LONGEST_BACK_OFF = 60.0
Build = Callable[[], LoadedEncoder]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is remembered of a load; holds no encoder, so that an unloaded one is really gone."""

    spec: EncoderSpec
    choice: FormChoice
    fallback: str
    weight_bytes: int
    fidelity: Mapping[str, float]
    limits: BatcherLimits
    growth: Growth
    seconds: float


class ModelSlot:
    """A lane (see ``EncoderLane``) over whichever encoder is loaded now.

    ``keep_alive`` seconds without a request unload it (0: never); a request that meets a cold slot
    waits at most ``wait_seconds`` for the load. Not thread-safe: everything on one event loop.
    """

    def __init__(
        self,
        build: Build,
        *,
        name: str,
        limits: BatcherLimits,
        purpose: str = "query",
        keep_alive: float = 0.0,
        wait_seconds: float = 60.0,
        clock: Clock | None = None,
        timers: Timers | None = None,
        observer: Observer | None = None,
        gauge: LoadGauge | None = None,
    ) -> None:
        self._build = build
        self._name = name
        self._limits = limits
        self._purpose = purpose
        self._keep_alive = keep_alive
        self._wait_seconds = wait_seconds
        self._clock = clock or SystemClock()
        self._timers = timers or LoopTimers()
        self._observer = observer or NullObserver()
        self._gauge = gauge or LoadGauge()
        self._batcher: Batcher | None = None
        self._facts: _Facts | None = None
        self._loading: asyncio.Task[None] | None = None
        self._change = asyncio.Lock()
        self._retiring: dict[Batcher, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._alarm: Timer | None = None
        self._active = 0
        self._used_at = self._clock.monotonic()
        self._loads = 0
        self._failures = 0
        self._failed_at = 0.0
        self._failure: Exception | None = None
        self._closed = False

    @property
    def state(self) -> SlotState:
        if self._closed:
            return SlotState.DRAINING
        if self._batcher is not None:
            return SlotState.READY
        if self._loading is not None and not self._loading.done():
            return SlotState.LOADING
        return SlotState.FAILED if self._failure is not None else SlotState.COLD

    @property
    def spec(self) -> EncoderSpec:
        """What runs now, or what ran last; raises ``NotReady`` before the first load."""
        if self._facts is None:
            raise NotReady(
                f"{self._name} is not loaded yet", retry_after=2, hint="try again shortly"
            )
        return self._facts.spec

    @property
    def depth(self) -> int:
        """Requests admitted and not yet answered, those that wait for a load included."""
        return self._active

    @property
    def waiting(self) -> int:
        """Items that have not started."""
        return self._batcher.waiting if self._batcher else 0

    @property
    def capacity(self) -> int:
        return self._limits.queue_requests

    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult:
        """Run ``items`` on the encoder that is loaded now, loading it first where none is.

        Raises ``NotReady`` when it cannot be loaded, is not loaded in time, or the slot is closed,
        and what ``Batcher.submit`` raises.
        """
        self._active += 1
        try:
            while (batcher := self._batcher) is None:
                await self._wait_for_load()
            # No await may stand here: admission and the look at what serves are one step, so that
            # a swap finds this request either admitted by the old encoder or bound for the new.
            return await batcher.submit(items, truncate=truncate, urgent=urgent, timing=timing)
        finally:
            self._active -= 1
            self._used()

    async def load(self) -> None:
        """Load now, or join the load that runs; raises what loading raises."""
        if self._batcher is None:
            await asyncio.shield(self._load_task())

    async def reload(self, build: Build | None = None) -> None:
        """Load anew (from ``build``, kept from then on) beside what runs, then swap.

        The old encoder finishes what it has admitted and is then released. Raises what loading
        raises; then the old one goes on.
        """
        await asyncio.shield(self._kept(self._replace(build or self._build)))

    async def unload(self) -> bool:
        """Release the encoder if no request is in flight; returns whether it did."""
        async with self._change:
            batcher = self._batcher
            if batcher is None or self._active or self._closed:
                return False
            self._batcher = None
            await batcher.close()
            del batcher
            await asyncio.to_thread(trim)
        self._say("cold", reason="idle")
        return True

    async def drain(self) -> None:
        """Refuse new work, finish what was admitted, release everything."""
        self._closed = True
        async with self._change:
            self._retire()
        await asyncio.gather(*self._retiring.values(), return_exceptions=True)

    async def close(self) -> None:
        """Refuse new work, fail what waits, end a load that runs, release everything."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        async with self._change:
            self._retire()
        for batcher in tuple(self._retiring):
            await batcher.close()
        await asyncio.gather(*self._retiring.values(), *self._tasks, return_exceptions=True)

    def info(self) -> SlotInfo:
        """Return what this slot says of itself now."""
        about = SlotInfo(
            purpose=self._purpose,
            state=self.state,
            model=self._name,
            error=str(self._failure) if self._failure else "",
            loads=self._loads,
            retiring=len(self._retiring),
            keep_alive=self._keep_alive,
            idle_seconds=0.0 if self._active else self._clock.monotonic() - self._used_at,
        )
        facts = self._facts
        if facts is None:
            return about
        choice = facts.choice
        return replace(
            about,
            model=facts.spec.model,
            form=facts.spec.form,
            runtime=facts.spec.form.partition(":")[0],
            device=facts.spec.device,
            reason=choice.reason,
            fallback=facts.fallback,
            load_seconds=facts.seconds,
            memory=MemoryInfo(
                resident_bytes=facts.growth.bytes if self._batcher else 0,
                exact=facts.growth.alone,
                weights_bytes=facts.weight_bytes,
            ),
            batch=BatchPolicy(
                token_budget=facts.limits.token_budget,
                max_batch=facts.limits.max_batch,
                threads=choice.threads,
            ),
            fidelity=facts.fidelity,
        )

    async def _wait_for_load(self) -> None:
        """Wait for the one load, starting it where none runs; its error is this request's."""
        if self._closed:
            raise NotReady(f"{self._name} is being closed", retry_after=5, hint="try again shortly")
        self._refuse_in_back_off()
        task = self._load_task()
        done, _ = await asyncio.wait([task], timeout=self._wait_seconds)
        if not done:
            raise NotReady(
                f"{self._name} was not loaded within {self._wait_seconds:g} s",
                retry_after=5,
                hint="it goes on loading; try again, or set models.keep_alive = 0",
            )
        error = task.exception()
        if error is not None:
            raise NotReady(
                f"{self._name} could not be loaded: {error}",
                retry_after=self._back_off(),
                hint=getattr(error, "hint", "") or "see the server's log",
            ) from error

    def _refuse_in_back_off(self) -> None:
        loading = self._loading is not None and not self._loading.done()
        if self._failure is None or loading:
            return
        left = self._failed_at + self._back_off() - self._clock.monotonic()
        if left > 0:
            raise NotReady(
                f"{self._name} could not be loaded: {self._failure}",
                retry_after=left,
                hint=getattr(self._failure, "hint", "") or "see the server's log",
            )

    def _back_off(self) -> float:
        """Seconds after the last failure before a request tries again: 1, 2, 4, … at most 60."""
        return float(min(LONGEST_BACK_OFF, 2.0 ** max(0, min(self._failures - 1, 10))))

    def _load_task(self) -> asyncio.Task[None]:
        if self._loading is None or self._loading.done():
            self._loading = self._kept(self._load_once())
        return self._loading

    async def _load_once(self) -> None:
        if self._batcher is None:
            await self._replace(self._build, only_if_cold=True)

    async def _replace(self, build: Build, *, only_if_cold: bool = False) -> None:
        async with self._change:
            if only_if_cold and self._batcher is not None:
                return
            started = self._clock.monotonic()
            try:
                loaded, growth = await asyncio.to_thread(self._gauge.measure, build)
            except Exception as error:
                self._failures += 1
                self._failed_at, self._failure = self._clock.monotonic(), error
                self._say("ready" if self._batcher else "failed", reason=str(error))
                raise
            if self._closed:
                loaded.encoder.close()
                raise NotReady(f"{self._name} was closed while it loaded", retry_after=5)
            self._build = build
            self._swap(loaded, growth, self._clock.monotonic() - started)

    def _swap(self, loaded: LoadedEncoder, growth: Growth, seconds: float) -> None:
        limits = self._limits
        if loaded.choice.token_budget:
            limits = replace(limits, token_budget=loaded.choice.token_budget)
        self._retire()
        self._batcher = Batcher(
            loaded.encoder, limits=limits, clock=self._clock, observer=self._observer
        )
        self._facts = _Facts(
            spec=loaded.encoder.spec,
            choice=loaded.choice,
            fallback=loaded.fallback,
            weight_bytes=loaded.weight_bytes,
            fidelity=loaded.fidelity,
            limits=limits,
            growth=growth,
            seconds=seconds,
        )
        self._failures, self._failure = 0, None
        self._loads += 1
        self._say("ready", seconds=seconds)
        self._used()

    def _retire(self) -> None:
        """Let the batcher that serves finish what it has, out of sight of new requests."""
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            self._retiring[batcher] = self._kept(self._drained(batcher))

    async def _drained(self, batcher: Batcher) -> None:
        try:
            await batcher.drain()
        finally:
            self._retiring.pop(batcher, None)
            del batcher
            await asyncio.to_thread(trim)

    def _used(self) -> None:
        """Note that the model was used; the alarm looks at the note when it rings."""
        self._used_at = self._clock.monotonic()
        if self._keep_alive and self._alarm is None and not self._closed:
            self._alarm = self._timers.after(self._keep_alive, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._batcher is None or self._closed:
            return
        left = self._used_at + self._keep_alive - self._clock.monotonic()
        if self._active or left > 0:
            self._alarm = self._timers.after(left if left > 0 else self._keep_alive, self._ring)
            return
        _log.info("%s was idle for %g s and is unloaded", self._name, self._keep_alive)
        self._kept(self.unload())

    def _kept(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` as a task that nobody needs to wait for; its error is told to who does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def _say(self, state: str, *, reason: str = "", seconds: float = 0.0) -> None:
        self._observer.observe(
            ModelStateChanged(model=self._name, state=state, reason=reason, seconds=seconds)
        )

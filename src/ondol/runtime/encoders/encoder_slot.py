"""One encoder model in service: a ``Slot`` over the ``Batcher`` in front of the encoder loaded now.

Callers see one lane that stays, and what it says of itself: form, memory, batch policy, fidelity.
Knows no form and no settings; ``build`` loads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ondol.backends.protocols import EncoderSpec
from ondol.core.clock import Clock
from ondol.core.errors import NotReady
from ondol.core.events import Observer, Timing
from ondol.core.process import Growth, LoadGauge
from ondol.core.timers import Timers
from ondol.core.types import Encoded, Pair
from ondol.models.form_choice import FormChoice
from ondol.runtime.encoders.batcher import Batcher, BatcherLimits, BatchResult
from ondol.runtime.encoders.encoder_plan import LoadedEncoder
from ondol.runtime.slot import Slot, SlotLimits, SlotState

Build = Callable[[], LoadedEncoder]


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """``resident_bytes`` is what the process grew by at the load; ``exact`` when nothing else loaded.

    ``weights_bytes`` is the size of the form's file.
    """

    resident_bytes: int | None = None
    exact: bool = False
    weights_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How batches are formed: tokens and items at most, and the threads that compute them."""

    token_budget: int
    max_batch: int
    threads: int


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """One encoder in service. ``reason`` says why this form; ``fallback`` why not the chosen one."""

    purpose: str
    state: SlotState
    model: str = ""
    form: str = ""
    runtime: str = ""
    device: str = ""
    reason: str = ""
    fallback: str = ""
    error: str = ""
    load_seconds: float = 0.0
    loads: int = 0
    retiring: int = 0
    keep_alive: float = 0.0
    idle_seconds: float = 0.0
    memory: MemoryInfo = field(default_factory=MemoryInfo)
    batch: BatchPolicy | None = None
    fidelity: Mapping[str, float] = field(default_factory=dict)


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


class EncoderSlot(Slot[Batcher]):
    """A lane (see ``EncoderLane``) over whichever encoder is loaded now.

    ``keep_alive`` seconds without a request unload it (0: never). A request waits for a load as long
    as it would wait in the queue; a swapped encoder may take as long as its bulk work may wait.
    """

    def __init__(
        self,
        build: Build,
        *,
        name: str,
        limits: BatcherLimits,
        purpose: str = "query",
        keep_alive: float = 0.0,
        clock: Clock | None = None,
        timers: Timers | None = None,
        observer: Observer | None = None,
        gauge: LoadGauge | None = None,
    ) -> None:
        super().__init__(
            partial(self._start, build),
            name=name,
            limits=SlotLimits(
                wait_seconds=limits.queue_seconds,
                drain_seconds=limits.bulk_seconds,
                keep_alive=keep_alive,
            ),
            clock=clock,
            timers=timers,
            observer=observer,
        )
        self._batching = limits
        self._purpose = purpose
        self._gauge = gauge or LoadGauge()
        self._facts: _Facts | None = None

    @property
    def spec(self) -> EncoderSpec:
        """What runs now, or what ran last; raises ``NotReady`` before the first load."""
        if self._facts is None:
            raise NotReady(
                f"{self.name} is not loaded yet", retry_after=2, hint="try again shortly"
            )
        return self._facts.spec

    @property
    def waiting(self) -> int:
        """Items that have not started."""
        return self._service.waiting if self._service else 0

    @property
    def backlog_seconds(self) -> float:
        """How long what waits now will take."""
        return self._service.backlog_seconds if self._service else 0.0

    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult:
        """Run ``items``, loading the encoder first where none is; raises what ``use`` and
        ``Batcher.submit`` raise."""
        async with self.use() as batcher:
            return await batcher.submit(items, truncate=truncate, urgent=urgent, timing=timing)

    async def reload_from(self, build: Build) -> None:
        """Load what ``build`` makes, from now on, beside what runs; see ``reload``."""
        await self.reload(partial(self._start, build))

    def info(self) -> SlotInfo:
        """Return what this slot says of itself now."""
        about = SlotInfo(
            purpose=self._purpose,
            state=self.state,
            model=self.name,
            error=str(self.failure) if self.failure else "",
            loads=self.loads,
            retiring=self.retiring,
            keep_alive=self._limits.keep_alive,
            idle_seconds=self.idle_seconds,
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
                resident_bytes=0 if self.cold else facts.growth.bytes,
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

    async def _start(self, build: Build) -> Batcher:
        started = self._clock.monotonic()
        loaded, growth = await asyncio.to_thread(self._gauge.measure, build)
        limits = self._batching
        if loaded.choice.token_budget:
            limits = replace(limits, token_budget=loaded.choice.token_budget)
        self._facts = _Facts(
            spec=loaded.encoder.spec,
            choice=loaded.choice,
            fallback=loaded.fallback,
            weight_bytes=loaded.weight_bytes,
            fidelity=loaded.fidelity,
            limits=limits,
            growth=growth,
            seconds=self._clock.monotonic() - started,
        )
        return Batcher(loaded.encoder, limits=limits, clock=self._clock, observer=self._observer)

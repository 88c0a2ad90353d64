"""Everything one component runs: the model in service, its bulk form, and an A/B candidate.

A lane for the services: sends each request to the slot of its purpose, through the trial where one
runs. Loads from a plan, and on a reload makes a new plan and swaps slot by slot, without a request
failing for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ondol.backends.protocols import EncoderSpec
from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput, ModelError, NotReady, OndolError
from ondol.core.events import Observer, Timing
from ondol.core.process import LoadGauge
from ondol.core.settings.sections import AbSettings, ModelSettings
from ondol.core.timers import Timers
from ondol.core.types import Encoded, Pair
from ondol.models.form_choice import FormChoice
from ondol.runtime.backend_factory import Component
from ondol.runtime.encoders.batcher import BatcherLimits, BatchResult
from ondol.runtime.encoders.comparison import ComparisonFigures
from ondol.runtime.encoders.encoder_lane import EncoderLane
from ondol.runtime.encoders.encoder_plan import (
    EncoderPlan,
    EncoderSource,
    load_exactly,
    load_or_fall_back,
)
from ondol.runtime.encoders.encoder_slot import Build, EncoderSlot, SlotInfo
from ondol.runtime.encoders.encoder_trial import AbTest
from ondol.runtime.slot import SlotState

_log = logging.getLogger("ondol.encoders")


@dataclass(frozen=True, slots=True)
class EncoderEnvironment:
    """What every slot of a process shares."""

    clock: Clock
    timers: Timers
    observer: Observer
    gauge: LoadGauge


@dataclass(frozen=True, slots=True)
class _Served:
    """A slot, and the lane that requests take to it (a cache may lie between)."""

    slot: EncoderSlot
    lane: EncoderLane


@dataclass(frozen=True, slots=True)
class AbInfo:
    """A trial as ``GET /v1/ab`` shows it; ``error`` says why the candidate is not there."""

    component: str
    candidate: str
    mode: str
    share: float
    slot: SlotInfo
    figures: ComparisonFigures
    error: str = ""


class EncoderGroup:
    """The embedder or the reranker in service (an ``EncoderLane``).

    ``front`` may put a lane of its own before each slot: one encoder's answers at a time, so that
    what it keeps of them belongs to that encoder.
    """

    def __init__(
        self,
        component: Component,
        source: EncoderSource,
        *,
        settings: ModelSettings,
        limits: BatcherLimits,
        shared: EncoderEnvironment,
        candidate: EncoderSource | None = None,
        ab: AbSettings | None = None,
        front: Callable[[EncoderLane], EncoderLane] | None = None,
    ) -> None:
        self._component = component
        self._source = source
        self._settings = settings
        self._limits = limits
        self._shared = shared
        self._candidate = candidate
        self._ab = ab or AbSettings()
        self._plan: EncoderPlan | None = None
        self._front = front
        self._query: _Served | None = None
        self._bulk: _Served | None = None
        self._second: EncoderSlot | None = None
        self._trial: AbTest | None = None
        self._ab_error = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def plan(self) -> EncoderPlan:
        """What is in service; raises ``NotReady`` before the first load."""
        if self._plan is None:
            raise self._not_ready()
        return self._plan

    @property
    def spec(self) -> EncoderSpec:
        return self._served(urgent=True).slot.spec

    @property
    def depth(self) -> int:
        return sum(slot.users for slot in self._slots())

    @property
    def waiting(self) -> int:
        return sum(slot.waiting for slot in self._slots())

    @property
    def backlog_seconds(self) -> float:
        return max((slot.backlog_seconds for slot in self._slots()), default=0.0)

    @property
    def largest_batch(self) -> int:
        return self._limits.max_batch

    @property
    def capacity(self) -> int:
        return self._limits.queue_requests

    @property
    def slots(self) -> list[SlotInfo]:
        """What runs, the query's slot first; the candidate is in ``ab``."""
        return [slot.info() for slot in self._slots()]

    @property
    def cold(self) -> bool:
        """Whether all of it was unloaded; the next request loads it."""
        return all(slot.state is SlotState.COLD for slot in self._slots())

    @property
    def trial(self) -> AbTest | None:
        """The A/B trial that runs, if any."""
        return self._trial

    @property
    def ab(self) -> AbInfo | None:
        """The trial's figures now, or ``None`` where no candidate is set."""
        if self._trial is None or self._second is None:
            return None
        return AbInfo(
            component=self._component,
            candidate=self._ab.candidate,
            mode=self._ab.mode,
            share=self._ab.share,
            slot=self._second.info(),
            figures=self._trial.comparison.figures(),
            error=self._ab_error,
        )

    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult:
        """Run ``items`` in the slot of their purpose; see ``EncoderLane``."""
        while True:
            served = self._served(urgent=urgent)
            lane = served.lane
            try:
                if self._trial is not None:
                    return await self._trial.submit(
                        lane, items, truncate=truncate, urgent=urgent, timing=timing
                    )
                return await lane.submit(items, truncate=truncate, urgent=urgent, timing=timing)
            except NotReady:
                # A slot that a reload has taken out of service refuses; its successor does not.
                if self._closed or served is self._served(urgent=urgent):
                    raise

    async def load(self) -> EncoderPlan:
        """Plan and load everything; raises what that meets, but never for the candidate's sake."""
        plan = await asyncio.to_thread(self._source.plan)
        slots = [self._new_slot(plan, plan.query, "query")]
        if plan.bulk is not None:
            slots.append(self._new_slot(plan, plan.bulk, "bulk"))
        try:
            for slot in slots:
                await slot.load()
        except BaseException:
            for slot in slots:
                await slot.close()
            raise
        old = self._slots()
        self._plan, self._query = plan, self._fronted(slots[0])
        self._bulk = self._fronted(slots[1]) if len(slots) > 1 else None
        for slot in old:
            self._in_background(slot.close(self._limits.bulk_seconds))
        await self._begin_trial(plan)
        return plan

    async def reload(self, *, form: str = "auto") -> None:
        """Plan anew, load beside what runs, swap; ``form`` overrides the settings until the next.

        Raises ``InvalidInput`` when the model has no such form and whatever loading raises; what
        ran then goes on. A named form that fails is an error: it does not fall back.
        """
        if self._query is None:
            await self.load()
            return
        plan = await self._planned(form)
        exact = form != "auto"
        try:
            await self._query.slot.reload_from(self._build(plan, plan.query, exact=exact))
        except ModelError as error:
            raise _as_input(error) if exact else error from None
        await self._renew_bulk(plan, exact=exact)
        self._plan = plan

    async def unload(self) -> bool:
        """Release what is idle now; returns whether all of it went. The next request loads it."""
        gone = [await slot.unload() for slot in self._slots()]
        return all(gone)

    async def close(self) -> None:
        """Refuse new work and release everything."""
        self._closed = True
        if self._trial is not None:
            await self._trial.close()
        second = [self._second] if self._second else []
        await asyncio.gather(*(slot.close() for slot in [*self._slots(), *second]))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _renew_bulk(self, plan: EncoderPlan, *, exact: bool) -> None:
        old = self._bulk
        if plan.bulk is None:
            self._bulk = None
            if old is not None:
                self._in_background(old.slot.close(self._limits.bulk_seconds))
        elif old is not None:
            await old.slot.reload_from(self._build(plan, plan.bulk, exact=exact))
        else:
            slot = self._new_slot(plan, plan.bulk, "bulk")
            await slot.load()
            self._bulk = self._fronted(slot)

    async def _planned(self, form: str) -> EncoderPlan:
        try:
            return await asyncio.to_thread(partial(self._source.plan, form=form))
        except ModelError as error:
            raise _as_input(error) from None

    async def _begin_trial(self, plan: EncoderPlan) -> None:
        if self._candidate is None or self._trial is not None:
            return
        try:
            other = await asyncio.to_thread(self._candidate.plan)
        except OndolError as error:
            self._ab_error = f"{error.message} ({error.hint})"
            _log.warning("the A/B candidate %s is not there: %s", self._ab.candidate, error)
            return
        self._second = self._slot_of(
            partial(load_exactly, self._candidate, other.query),
            name=f"{other.model} (candidate)",
            purpose="candidate",
            keep_alive=0.0,
        )
        same = other.space == plan.space
        measure = "kendall_tau" if self._component == "reranker" else "cosine" if same else None
        self._trial = AbTest(
            self._second,
            name=self._ab.candidate,
            component=self._component,
            mode=self._ab.mode,
            share=self._ab.share,
            same_tokens=other.model == plan.model,
            measure=measure,  # type: ignore[arg-type]
            observer=self._shared.observer,
        )
        self._trial.start()
        self._in_background(self._load_candidate(self._second))

    async def _load_candidate(self, slot: EncoderSlot) -> None:
        try:
            await slot.load()
        except Exception as error:
            self._ab_error = str(error)
            _log.warning("the A/B candidate %s cannot be loaded: %s", self._ab.candidate, error)

    def _new_slot(self, plan: EncoderPlan, choice: FormChoice, purpose: str) -> EncoderSlot:
        name = plan.model if purpose == "query" else f"{plan.model} ({purpose})"
        return self._slot_of(
            self._build(plan, choice, exact=False),
            name=name,
            purpose=purpose,
            keep_alive=self._settings.keep_alive,
        )

    def _slot_of(self, build: Build, *, name: str, purpose: str, keep_alive: float) -> EncoderSlot:
        shared = self._shared
        return EncoderSlot(
            build,
            name=name,
            purpose=purpose,
            limits=self._limits,
            keep_alive=keep_alive,
            clock=shared.clock,
            timers=shared.timers,
            observer=shared.observer,
            gauge=shared.gauge,
        )

    def _build(self, plan: EncoderPlan, choice: FormChoice, *, exact: bool) -> Build:
        if exact:
            return partial(load_exactly, self._source, choice)
        return partial(
            load_or_fall_back, self._source, choice, plan=plan, observer=self._shared.observer
        )

    def _fronted(self, slot: EncoderSlot) -> _Served:
        return _Served(slot, slot if self._front is None else self._front(slot))

    def _served(self, *, urgent: bool) -> _Served:
        served = self._query if urgent or self._bulk is None else self._bulk
        if served is None:
            raise self._not_ready()
        return served

    def _slots(self) -> list[EncoderSlot]:
        return [served.slot for served in (self._query, self._bulk) if served is not None]

    def _not_ready(self) -> NotReady:
        return NotReady(
            f"the {self._component} is not loaded yet", retry_after=2, hint="try again shortly"
        )

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _as_input(error: ModelError) -> OndolError:
    """A form that the model does not have is the caller's mistake, not the model's."""
    if error.param == "models.form":
        return InvalidInput(error.message, hint=error.hint, param="form")
    return error

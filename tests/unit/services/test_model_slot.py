"""One encoder in service: one load, a swap without a gap, unloading when idle."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.core.clock import ManualClock
from ondol.core.errors import ModelError, NotReady
from ondol.core.observe import Event, ModelStateChanged
from ondol.core.timers import ManualTimers
from ondol.core.types import Encoded, FloatMatrix
from ondol.engine.batcher import BatcherLimits
from ondol.models.form_choice import FormChoice
from ondol.services.encoder_plan import LoadedEncoder
from ondol.services.model_slot import LONGEST_BACK_OFF, ModelSlot
from ondol.services.slot_info import SlotState


class Held(FakeEmbedder):
    """Runs only while open; remembers whether it was closed."""

    def __init__(self, *, form: str = "fake:fp32") -> None:
        super().__init__(form=form)
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()
        self.closed = threading.Event()

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self.begun.set()
        assert self.open.wait(20)
        return super().run(batch)

    def close(self) -> None:
        self.closed.set()


class Builder:
    """Builds encoders for a slot: counts, holds, fails as the test wants."""

    def __init__(self, *, form: str = "fake:fp32", token_budget: int = 0) -> None:
        self.choice = FormChoice(form, "the test says so", threads=1, token_budget=token_budget)
        self.built: list[Held] = []
        self.error: Exception | None = None
        self.tries = 0
        self.begun = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def __call__(self) -> LoadedEncoder:
        self.tries += 1
        self.begun.set()
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error
        encoder = Held(form=self.choice.form)
        self.built.append(encoder)
        return LoadedEncoder(encoder, self.choice, weight_bytes=7)


class Stage:
    """A slot on a clock of its own."""

    def __init__(self, *, keep_alive: float = 0.0, wait_seconds: float = 20.0) -> None:
        self.clock = ManualClock()
        self.timers = ManualTimers(self.clock)
        self.events: list[Event] = []
        self.builder = Builder()
        self.slot = ModelSlot(
            self.builder,
            name="fake",
            limits=BatcherLimits(),
            keep_alive=keep_alive,
            wait_seconds=wait_seconds,
            clock=self.clock,
            timers=self.timers,
            observer=self,
        )

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, ModelStateChanged)]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage(keep_alive=30.0)
    yield stage
    for encoder in stage.builder.built:
        encoder.open.set()
    await stage.slot.close()


async def told(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 20)


async def settled(slot: ModelSlot, state: SlotState) -> None:
    async with asyncio.timeout(20):
        while slot.state is not state:
            await asyncio.sleep(0)


async def test_however_many_callers_race_it_loads_once(stage: Stage) -> None:
    stage.builder.open.clear()
    callers = [asyncio.create_task(stage.slot.submit([f"text {n}"])) for n in range(50)]
    await told(stage.builder.begun)
    assert stage.slot.state is SlotState.LOADING
    assert stage.slot.depth == 50
    callers.append(asyncio.create_task(stage.slot.submit(["late"])))
    stage.builder.open.set()
    results = await asyncio.gather(*callers, stage.slot.load())
    assert len(results) == 52
    assert stage.builder.tries == 1
    assert stage.slot.info().loads == 1


async def test_a_failed_load_fails_all_who_wait_and_is_tried_again_later(stage: Stage) -> None:
    stage.builder.error = ModelError("the file is damaged", hint="fetch it anew")
    stage.builder.open.clear()
    callers = [asyncio.create_task(stage.slot.submit(["a"])) for _ in range(5)]
    await told(stage.builder.begun)
    stage.builder.open.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(error, NotReady) for error in errors)
    assert "damaged" in str(errors[0])
    assert stage.slot.state is SlotState.FAILED
    with pytest.raises(NotReady, match="damaged") as caught:
        await stage.slot.submit(["b"])
    assert 0 < caught.value.retry_after <= 1
    assert stage.builder.tries == 1, "within the back-off nothing is tried"
    stage.clock.advance(1.0)
    with pytest.raises(NotReady):
        await stage.slot.submit(["c"])
    assert stage.builder.tries == 2
    stage.builder.error = None
    stage.clock.advance(2.0)
    assert (await stage.slot.submit(["d"])).values
    assert stage.states() == ["failed", "failed", "ready"]


async def test_the_back_off_is_bounded(stage: Stage) -> None:
    stage.builder.error = ModelError("no", hint="")
    for _ in range(20):
        with pytest.raises(NotReady):
            await stage.slot.submit(["a"])
        stage.clock.advance(LONGEST_BACK_OFF)
    assert stage.builder.tries == 20


async def test_a_caller_that_leaves_does_not_stop_the_load(stage: Stage) -> None:
    stage.builder.open.clear()
    leaving = asyncio.create_task(stage.slot.submit(["a"]))
    await told(stage.builder.begun)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    staying = asyncio.create_task(stage.slot.submit(["b"]))
    stage.builder.open.set()
    assert (await staying).values
    assert stage.builder.tries == 1


async def test_a_wait_for_the_load_is_bounded() -> None:
    stage = Stage(wait_seconds=0.01)
    stage.builder.open.clear()
    with pytest.raises(NotReady, match=r"not loaded within 0\.01 s"):
        await stage.slot.submit(["a"])
    stage.builder.open.set()
    await stage.slot.load()
    assert (await stage.slot.submit(["a"])).values
    await stage.slot.close()


async def test_a_reload_swaps_while_the_old_encoder_finishes(stage: Stage) -> None:
    await stage.slot.load()
    old = stage.builder.built[0]
    old.open.clear()
    running = asyncio.create_task(stage.slot.submit(["in flight"]))
    await told(old.begun)
    waiting = asyncio.create_task(stage.slot.submit(["queued behind it"]))
    async with asyncio.timeout(20):
        while not stage.slot.waiting:
            await asyncio.sleep(0)
    await stage.slot.reload(Builder(form="fake:int8"))
    after = await stage.slot.submit(["after"])
    assert after.spec is not None
    assert after.spec.form == "fake:int8"
    assert not running.done()
    assert stage.slot.info().retiring == 1
    assert not old.closed.is_set()
    old.open.set()
    for task in (running, waiting):
        finished = await task
        assert isinstance(finished.values[0], np.ndarray), "it was answered, not turned away"
        assert finished.spec is not None
        assert finished.spec.form == "fake:fp32"
    await told(old.closed)
    assert stage.slot.spec.form == "fake:int8"


async def test_no_request_fails_while_it_is_reloaded_again_and_again(stage: Stage) -> None:
    stop = asyncio.Event()
    forms: set[str] = set()

    async def ask() -> int:
        done = 0
        while not stop.is_set():
            result = await stage.slot.submit(["a text", "another"])
            assert all(isinstance(value, np.ndarray) for value in result.values)
            assert result.spec is not None
            forms.add(result.spec.form)
            done += 1
        return done

    callers = [asyncio.create_task(ask()) for _ in range(8)]
    for turn in range(10):
        await stage.slot.reload(Builder(form=f"fake:v{turn}"))
    stop.set()
    assert min(await asyncio.gather(*callers)) > 0
    assert len(forms) > 1


async def test_a_reload_that_fails_leaves_what_runs(stage: Stage) -> None:
    await stage.slot.load()
    broken = Builder(form="fake:broken")
    broken.error = ModelError("no such form", hint="")
    with pytest.raises(ModelError, match="no such form"):
        await stage.slot.reload(broken)
    assert stage.slot.state is SlotState.READY
    assert (await stage.slot.submit(["a"])).values
    assert stage.slot.spec.form == "fake:fp32"


async def test_an_idle_model_is_unloaded_and_the_next_request_loads_it(stage: Stage) -> None:
    await stage.slot.submit(["a"])
    first = stage.builder.built[0]
    stage.timers.advance(29.0)
    await stage.slot.submit(["b"])
    stage.timers.advance(29.0)
    assert stage.slot.state is SlotState.READY, "the second request counts"
    stage.timers.advance(1.0)
    await settled(stage.slot, SlotState.COLD)
    await told(first.closed)
    info = stage.slot.info()
    assert (info.form, info.memory.resident_bytes) == ("fake:fp32", 0)
    assert stage.slot.spec.dimensions == 64, "what it is stays known"
    assert (await stage.slot.submit(["c"])).values
    assert len(stage.builder.built) == 2
    assert stage.slot.info().loads == 2


async def test_a_model_at_work_is_not_idle(stage: Stage) -> None:
    await stage.slot.load()
    encoder = stage.builder.built[0]
    encoder.open.clear()
    running = asyncio.create_task(stage.slot.submit(["long"]))
    await told(encoder.begun)
    stage.timers.advance(300.0)
    assert stage.timers.pending == 1
    assert not await stage.slot.unload()
    encoder.open.set()
    assert (await running).values
    assert not encoder.closed.is_set()


async def test_a_form_that_was_reloaded_survives_the_idle_time(stage: Stage) -> None:
    await stage.slot.load()
    await stage.slot.reload(Builder(form="fake:int8", token_budget=99))
    assert await stage.slot.unload()
    result = await stage.slot.submit(["a"])
    assert result.spec is not None
    assert result.spec.form == "fake:int8"
    batch = stage.slot.info().batch
    assert batch is not None
    assert batch.token_budget == 99


async def test_without_keep_alive_no_alarm_is_set() -> None:
    stage = Stage()
    await stage.slot.submit(["a"])
    assert stage.timers.pending == 0
    await stage.slot.close()
    assert stage.slot.state is SlotState.DRAINING
    with pytest.raises(NotReady):
        await stage.slot.submit(["b"])


async def test_closing_during_a_load_leaves_nothing_loaded(stage: Stage) -> None:
    stage.builder.open.clear()
    waiting = asyncio.create_task(stage.slot.submit(["a"]))
    await told(stage.builder.begun)
    closing = asyncio.create_task(stage.slot.close())
    stage.builder.open.set()
    await closing
    with pytest.raises(NotReady):
        await waiting
    assert stage.builder.built[0].closed.is_set()

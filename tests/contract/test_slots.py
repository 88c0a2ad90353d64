"""A model in service: one load, a swap without a gap, back-off after failures, unloading when idle."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from tests.contract.slot_subjects import (
    PREFIXES,
    SUBJECTS,
    EncoderSubject,
    GeneratorSubject,
    Subject,
)

from ondol.core.errors import ModelError, NotReady
from ondol.core.events import RequestFinished
from ondol.runtime.slot import FIRST_BACK_OFF, LONGEST_BACK_OFF, SlotState


@pytest.fixture(params=SUBJECTS)
def kind(request: pytest.FixtureRequest) -> type[Subject]:
    return SUBJECTS[request.param]


@pytest.fixture
async def subject(kind: type[Subject]) -> AsyncIterator[Subject]:
    subject = kind(keep_alive=30.0)
    yield subject
    subject.open.set()
    for model in subject.built:
        model.open.set()
    await subject.slot.close()


async def told(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 20)


async def settled(subject: Subject, state: SlotState) -> None:
    async with asyncio.timeout(20):
        while subject.slot.state is not state:
            await asyncio.sleep(0)


async def test_however_many_callers_race_it_loads_once(subject: Subject) -> None:
    assert subject.slot.cold
    subject.open.clear()
    callers = [asyncio.create_task(subject.ask()) for _ in range(8)]
    await told(subject.begun)
    assert subject.slot.state is SlotState.LOADING
    assert subject.slot.users == 8
    callers.append(asyncio.create_task(subject.ask()))
    subject.open.set()
    await subject.slot.load()
    assert await asyncio.gather(*callers) == ["v0"] * 9
    assert (subject.tries, subject.slot.loads, subject.slot.users) == (1, 1, 0)


async def test_a_failed_load_fails_all_who_wait_with_its_reason(subject: Subject) -> None:
    subject.error = ModelError("the file is damaged", hint="fetch it anew")
    subject.open.clear()
    callers = [asyncio.create_task(subject.ask()) for _ in range(5)]
    await told(subject.begun)
    subject.open.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(error, NotReady) and "damaged" in str(error) for error in errors)
    assert subject.slot.state is SlotState.FAILED
    subject.error = None
    subject.clock.advance(LONGEST_BACK_OFF)
    assert await subject.ask() == "v0"
    assert subject.states() == ["failed", "ready"]


async def test_the_back_off_doubles_with_each_failure_up_to_its_bound(subject: Subject) -> None:
    subject.error = ModelError("the file is damaged", hint="fetch it anew")
    waits = []
    for tries in range(1, 10):
        with pytest.raises(NotReady, match="damaged"):
            await subject.ask()
        with pytest.raises(NotReady, match="damaged") as caught:
            await subject.ask()
        assert subject.tries == tries, "within the back-off nothing is tried"
        assert caught.value.hint == "fetch it anew"
        waits.append(caught.value.retry_after)
        subject.clock.advance(caught.value.retry_after)
    growing = [FIRST_BACK_OFF * 2**n for n in range(6)]
    assert waits == [*growing, *[LONGEST_BACK_OFF] * 3]


async def test_a_success_forgets_the_failures_before_it(subject: Subject) -> None:
    subject.error = ModelError("no", hint="")
    for _ in range(3):
        with pytest.raises(NotReady):
            await subject.ask()
        subject.clock.advance(LONGEST_BACK_OFF)
    subject.error = None
    await subject.ask()
    assert await subject.slot.unload()
    subject.error = ModelError("no", hint="")
    for _ in range(2):
        with pytest.raises(NotReady) as caught:
            await subject.ask()
    assert caught.value.retry_after == FIRST_BACK_OFF


async def test_a_caller_that_leaves_does_not_stop_the_load(subject: Subject) -> None:
    subject.open.clear()
    leaving = asyncio.create_task(subject.ask())
    await told(subject.begun)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    staying = asyncio.create_task(subject.ask())
    subject.open.set()
    assert await staying == "v0"
    assert subject.tries == 1


async def test_a_wait_for_the_load_is_bounded(kind: type[Subject]) -> None:
    subject = kind(wait_seconds=0.01)
    subject.open.clear()
    with pytest.raises(NotReady, match=r"not loaded within 0\.01 s"):
        await subject.ask()
    subject.open.set()
    await subject.slot.load()
    assert await subject.ask() == "v0"
    await subject.slot.close()


async def test_a_reload_swaps_while_the_old_one_ends_what_it_has(subject: Subject) -> None:
    await subject.slot.load()
    old = subject.built[0]
    old.open.clear()
    running = asyncio.create_task(subject.ask())
    await told(old.begun)
    await subject.slot.reload()
    assert await subject.ask() == "v1"
    assert not running.done()
    assert subject.slot.retiring == 1
    assert not old.closed.is_set()
    old.open.set()
    assert await running == "v0", "it was answered, not turned away"
    await told(old.closed)


async def test_no_request_fails_while_it_is_reloaded_again_and_again(subject: Subject) -> None:
    stop = asyncio.Event()

    async def ask() -> set[str]:
        answers = set()
        while not stop.is_set():
            answers.add(await subject.ask())
        return answers

    callers = [asyncio.create_task(ask()) for _ in range(4)]
    for _ in range(10):
        await subject.slot.reload()
    stop.set()
    answers = await asyncio.gather(*callers)
    assert all(answers)
    assert len(set().union(*answers)) > 1
    assert "" not in set().union(*answers)


async def test_a_reload_that_fails_leaves_what_runs(subject: Subject) -> None:
    await subject.slot.load()
    subject.error = ModelError("no such form", hint="")
    with pytest.raises(ModelError, match="no such form"):
        await subject.slot.reload()
    assert subject.slot.state is SlotState.READY
    assert await subject.ask() == "v0"
    assert await subject.slot.unload()
    subject.error = None
    assert await subject.ask() == "v1", "what failed beside it is no reason to wait"


async def test_an_idle_model_is_unloaded_and_the_next_request_loads_it(subject: Subject) -> None:
    await subject.ask()
    subject.timers.advance(29.0)
    await subject.ask()
    subject.timers.advance(29.0)
    assert subject.slot.state is SlotState.READY, "the second request counts"
    subject.timers.advance(1.0)
    await settled(subject, SlotState.COLD)
    await told(subject.built[0].closed)
    assert await subject.ask() == "v1"
    assert subject.slot.loads == 2
    async with asyncio.timeout(20):
        while subject.states() != ["ready", "cold", "ready"]:
            await asyncio.sleep(0)


async def test_a_model_at_work_is_not_idle(subject: Subject) -> None:
    await subject.slot.load()
    model = subject.built[0]
    model.open.clear()
    running = asyncio.create_task(subject.ask())
    await told(model.begun)
    subject.timers.advance(31.0)
    assert subject.slot.idle_seconds == 0.0
    assert not await subject.slot.unload()
    model.open.set()
    assert await running == "v0"
    assert not model.closed.is_set()


async def test_a_cold_model_has_nothing_to_unload(subject: Subject) -> None:
    assert not await subject.slot.unload()
    await subject.slot.load()
    assert await subject.slot.unload()
    assert not await subject.slot.unload()


async def test_without_keep_alive_no_alarm_is_set(kind: type[Subject]) -> None:
    subject = kind()
    await subject.slot.load()
    assert subject.timers.pending == 0
    await subject.slot.close()


async def test_a_closed_slot_refuses_and_is_never_silent(subject: Subject) -> None:
    await subject.slot.load()
    await subject.slot.close()
    assert subject.slot.state is SlotState.DRAINING
    assert subject.built[0].closed.is_set()
    with pytest.raises(NotReady):
        await subject.ask()
    assert not await subject.slot.unload()
    with pytest.raises(NotReady):
        await subject.slot.load()
    assert subject.tries == 1


async def test_draining_lets_what_was_admitted_end(subject: Subject) -> None:
    await subject.slot.load()
    model = subject.built[0]
    model.open.clear()
    running = asyncio.create_task(subject.ask())
    await told(model.begun)
    closing = asyncio.create_task(subject.slot.close(drain_seconds=20.0))
    await settled(subject, SlotState.DRAINING)
    with pytest.raises(NotReady):
        await subject.ask()
    model.open.set()
    assert await running == "v0"
    await closing
    assert model.closed.is_set()


async def test_closing_during_a_load_leaves_nothing_loaded(subject: Subject) -> None:
    subject.open.clear()
    waiting = asyncio.create_task(subject.ask())
    await told(subject.begun)
    closing = asyncio.create_task(subject.slot.close())
    await settled(subject, SlotState.DRAINING)
    subject.open.set()
    await closing
    with pytest.raises(NotReady):
        await waiting
    assert subject.built[0].closed.is_set()


async def test_a_request_that_meets_an_unloading_loads_anew() -> None:
    """Between its load and its answer a generator was once unloaded, and the stream was empty."""
    for subject in (EncoderSubject(), GeneratorSubject()):
        loads = [subject.slot.load() for _ in range(3)]
        requests = [subject.ask() for _ in range(3)]
        unloads = [subject.slot.unload() for _ in range(3)]
        _, answers, _ = await asyncio.gather(
            asyncio.gather(*loads), asyncio.gather(*requests), asyncio.gather(*unloads)
        )
        assert all(answer.startswith("v") for answer in answers)
        await subject.slot.close()


async def test_the_generator_reads_the_prefixes_that_it_is_given_at_every_load() -> None:
    subject = GeneratorSubject()
    await subject.slot.load()
    await subject.slot.reload()
    assert [model.preloaded for model in subject.built] == [PREFIXES, PREFIXES]
    await subject.slot.close()


async def test_what_a_request_waits_for_a_load_counts_into_its_time() -> None:
    subject = GeneratorSubject()
    subject.open.clear()
    request = asyncio.create_task(subject.ask())
    await told(subject.begun)
    subject.clock.advance(0.5)
    subject.open.set()
    await request
    (finished,) = [event for event in subject.events if isinstance(event, RequestFinished)]
    assert finished.timing.total_ms == 500.0
    await subject.slot.close()

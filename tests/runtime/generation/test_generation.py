"""The generation engine: admission, limits, cancellation, draining and the books it keeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ondol.backends.fake_generator import FakeGenerator
from ondol.backends.protocols import Generator, GeneratorHealth, GeneratorSpec
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock, ManualClock
from ondol.core.errors import (
    BackendError,
    DeadlineExceeded,
    GeneratorDied,
    InvalidInput,
    NotReady,
    Overloaded,
)
from ondol.core.events import Event, RequestFinished, Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.types import (
    DoneEvent,
    GenerationEvent,
    GenerationRequest,
    Message,
    TokenEvent,
    Usage,
)
from ondol.runtime.generation.generation import GenerationEngine
from ondol.runtime.generation.policy import Fifo
from ondol.runtime.generation.running import GenerationLimits


@dataclass
class Books:
    """An observer that keeps what it hears."""

    finished: list[RequestFinished] = field(default_factory=list)

    def observe(self, event: Event) -> None:
        if isinstance(event, RequestFinished):
            self.finished.append(event)

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(event.outcome, event.code) for event in self.finished]


def ask(text: str = "one two three", *, max_tokens: int = 100) -> GenerationRequest:
    return GenerationRequest([Message("user", text)], max_tokens=max_tokens)


def engine_of(
    backend: Generator,
    books: Books | None = None,
    *,
    slots: int = 1,
    queue: int = 8,
    limits: GenerationLimits | None = None,
    clock: Clock | None = None,
    **lane: Any,
) -> GenerationEngine:
    lanes = LanesSettings.model_validate(
        {"chat": {"running": 100, "queue": queue, "sla_ms": 0, **lane}}
    )
    return GenerationEngine(
        backend,
        slots=slots,
        lanes=lanes,
        policy=Fifo(),
        limits=limits,
        observer=books or Books(),
        clock=clock,
    )


async def text_of(events: AsyncIterator[GenerationEvent]) -> str:
    return "".join([event.text async for event in events if isinstance(event, TokenEvent)])


async def until_running(backend: FakeGenerator, count: int) -> None:
    assert await asyncio.to_thread(backend.wait_active, count)


async def until_waiting(engine: GenerationEngine, depth: int) -> None:
    while engine.snapshot().depth != depth:
        await asyncio.sleep(0)


async def test_streams_every_piece_then_done_and_keeps_the_books() -> None:
    books = Books()
    engine = engine_of(FakeGenerator(), books)
    timing = Timing()

    events = [
        event
        async for event in engine.stream(ask(), terms=RequestTerms(lane="search"), timing=timing)
    ]

    assert "".join(e.text for e in events if isinstance(e, TokenEvent)) == "one two three"
    assert isinstance(events[-1], DoneEvent)
    assert sum(isinstance(event, DoneEvent) for event in events) == 1
    [finished] = books.finished
    assert (finished.lane, finished.outcome, finished.model) == ("search", "ok", "fake-generator")
    assert (finished.tokens_in, finished.tokens_out) == (3, 3)
    assert finished.timing is timing
    assert (timing.prefill_ms, timing.decode_ms) == (3.0, 3.0)
    assert 0 < timing.ttft_ms <= timing.total_ms
    await engine.close(1)


async def test_requests_run_in_the_order_they_came() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate)
    engine = engine_of(backend)
    tasks = [asyncio.create_task(text_of(engine.stream(ask(f"n{i}")))) for i in range(5)]
    await until_running(backend, 1)
    await until_waiting(engine, 4)
    gate.set()

    assert await asyncio.gather(*tasks) == ["n0", "n1", "n2", "n3", "n4"]
    assert [r.messages[0].content for r in backend.order] == ["n0", "n1", "n2", "n3", "n4"]
    assert backend.peak == 1
    await engine.close(1)


async def test_runs_as_many_at_once_as_there_are_slots() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate, slots=3)
    engine = engine_of(backend, slots=3)
    tasks = [asyncio.create_task(text_of(engine.stream(ask()))) for _ in range(7)]
    await until_running(backend, 3)

    assert engine.snapshot().running == 3
    gate.set()
    await asyncio.gather(*tasks)

    assert backend.peak == 3
    await engine.close(1)


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate)
    books = Books()
    engine = engine_of(backend, books, queue=2)
    tasks = [asyncio.create_task(text_of(engine.stream(ask()))) for _ in range(3)]
    await until_running(backend, 1)
    await until_waiting(engine, 2)

    with pytest.raises(Overloaded) as refused:
        await text_of(engine.stream(ask()))

    assert refused.value.retry_after > 0
    assert "limit is 2" in refused.value.message
    assert books.outcomes == [("refused", "overloaded")]
    gate.set()
    assert await asyncio.gather(*tasks) == ["one two three"] * 3
    await engine.close(1)


async def test_retry_after_follows_the_measured_drain_rate() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate)
    clock = ManualClock()
    engine = engine_of(backend, clock=clock)
    first = asyncio.create_task(text_of(engine.stream(ask())))
    await until_running(backend, 1)
    clock.advance(12.0)
    gate.set()
    await first
    await until_running(backend, 0)
    gate.clear()
    while engine.snapshot().running:
        await asyncio.sleep(0)

    assert engine.snapshot().service_seconds == pytest.approx(12.0)
    assert engine.snapshot().drain_rate == pytest.approx(1 / 12)
    tasks = [asyncio.create_task(text_of(engine.stream(ask()))) for _ in range(9)]
    await until_waiting(engine, 8)
    with pytest.raises(Overloaded) as full:
        await text_of(engine.stream(ask()))
    assert 12.0 <= full.value.retry_after <= 15.0
    gate.set()
    await asyncio.gather(*tasks)
    await engine.close(1)


async def test_closing_the_stream_stops_the_backend_and_frees_the_slot() -> None:
    gate = threading.Event()
    backend = FakeGenerator(decode_gate=gate)
    books = Books()
    engine = engine_of(backend, books)
    stream = engine.stream(ask())
    assert await anext(stream) == TokenEvent("one")

    await stream.aclose()

    await until_running(backend, 0)
    assert books.outcomes == [("cancelled", "cancelled")]
    gate.set()
    assert await text_of(engine.stream(ask())) == "one two three"
    await engine.close(1)


async def test_cancelling_the_task_in_prefill_stops_the_backend() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate)
    books = Books()
    engine = engine_of(backend, books)
    task = asyncio.create_task(text_of(engine.stream(ask())))
    await until_running(backend, 1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await until_running(backend, 0)
    assert books.outcomes == [("cancelled", "cancelled")]
    await engine.close(1)


async def test_a_cancelled_waiter_leaves_the_queue_at_once_and_never_runs() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate)
    engine = engine_of(backend)
    first = asyncio.create_task(text_of(engine.stream(ask("first"))))
    await until_running(backend, 1)
    second = asyncio.create_task(text_of(engine.stream(ask("second"))))
    await until_waiting(engine, 1)

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second

    assert engine.snapshot().depth == 0
    gate.set()
    await first
    assert [r.messages[0].content for r in backend.order] == ["first"]
    await engine.close(1)


async def test_a_slot_is_not_free_before_the_backend_has_returned() -> None:
    backend = _Stubborn()
    engine = engine_of(cast(Generator, backend))
    stream = engine.stream(ask())
    assert await anext(stream) == TokenEvent("x")
    await stream.aclose()

    waiting = asyncio.create_task(text_of(engine.stream(ask())))
    await until_waiting(engine, 1)
    assert engine.snapshot().running == 1
    backend.let_go.set()

    assert await waiting == "x"
    await engine.close(1)


async def test_the_queue_limit_has_a_name() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate)
    books = Books()
    engine = engine_of(backend, books, queue_seconds=0.01)
    first = asyncio.create_task(text_of(engine.stream(ask())))
    await until_running(backend, 1)

    with pytest.raises(Overloaded, match="queue") as late:
        await text_of(engine.stream(ask()))

    assert late.value.code == "queue_deadline_exceeded"
    assert books.outcomes == [("refused", "queue_deadline_exceeded")]
    gate.set()
    await first
    await engine.close(1)


async def test_the_first_token_limit_has_a_name_and_stops_the_backend() -> None:
    backend = FakeGenerator(prefill_gate=threading.Event())
    books = Books()
    engine = engine_of(backend, books, limits=GenerationLimits(first_token_seconds=0.01))

    with pytest.raises(DeadlineExceeded, match="first token"):
        await text_of(engine.stream(ask()))

    await until_running(backend, 0)
    assert books.outcomes == [("deadline", "first_token_deadline_exceeded")]
    await engine.close(1)


async def test_the_total_limit_holds_while_tokens_come() -> None:
    backend = FakeGenerator(decode_gate=threading.Event())
    engine = engine_of(backend, limits=GenerationLimits(total_seconds=0.2))

    with pytest.raises(DeadlineExceeded, match="total"):
        await text_of(engine.stream(ask()))

    await until_running(backend, 0)
    await engine.close(1)


async def test_the_total_limit_also_stops_a_request_whose_reader_is_stuck() -> None:
    backend = FakeGenerator(script=lambda _: ["x"] * 10_000)
    engine = engine_of(backend, limits=GenerationLimits(total_seconds=0.05))
    stream = engine.stream(ask(max_tokens=100_000))
    assert await anext(stream) == TokenEvent("x")

    await until_running(backend, 0)

    with pytest.raises(DeadlineExceeded):
        await text_of(stream)
    await engine.close(1)


async def test_a_slow_reader_loses_nothing() -> None:
    backend = FakeGenerator(script=lambda _: [f"{i} " for i in range(1000)])
    engine = engine_of(backend)
    pieces = []
    async for event in engine.stream(ask(max_tokens=1000)):
        await asyncio.sleep(0)
        if isinstance(event, TokenEvent):
            pieces.append(event.text)

    assert "".join(pieces) == "".join(f"{i} " for i in range(1000))
    await engine.close(1)


async def test_what_the_backend_raises_reaches_the_caller_alone() -> None:
    def script(request: GenerationRequest) -> list[str] | InvalidInput:
        bad = request.messages[0].content == "bad"
        return InvalidInput("bad schema", param="response_format") if bad else ["good"]

    books = Books()
    engine = engine_of(FakeGenerator(script=script), books)
    bad, good = await asyncio.gather(
        text_of(engine.stream(ask("bad"))),
        text_of(engine.stream(ask("good"))),
        return_exceptions=True,
    )

    assert isinstance(bad, InvalidInput)
    assert good == "good"
    assert sorted(books.outcomes) == [("failed", "invalid_input"), ("ok", "")]
    await engine.close(1)


async def test_an_unforeseen_failure_is_a_backend_error_and_frees_the_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(request: GenerationRequest) -> list[str]:
        if request.messages[0].content == "bad":
            raise ZeroDivisionError("by zero")
        return ["good"]

    engine = engine_of(FakeGenerator(script=script))
    with pytest.raises(BackendError, match="by zero"):
        await text_of(engine.stream(ask("bad")))

    assert await text_of(engine.stream(ask("good"))) == "good"
    assert "the generator failed" in caplog.text
    await engine.close(1)


async def test_death_fails_the_running_and_keeps_the_waiting() -> None:
    gate = threading.Event()
    backend = FakeGenerator(decode_gate=gate)
    books = Books()
    engine = engine_of(backend, books)
    stream = engine.stream(ask())
    await anext(stream)
    waiting = asyncio.create_task(text_of(engine.stream(ask())))
    await until_waiting(engine, 1)

    backend.die()

    with pytest.raises(GeneratorDied):
        await text_of(stream)
    assert not engine.ready
    with pytest.raises(NotReady) as refused:
        await text_of(engine.stream(ask()))
    assert refused.value.retry_after > 0
    gate.set()
    backend.revive()
    assert engine.ready
    assert await waiting == "one two three"
    assert [outcome for outcome, _ in books.outcomes] == ["failed", "refused", "ok"]
    await engine.close(1)


async def test_closing_drains_what_was_admitted_and_refuses_the_rest() -> None:
    gate = threading.Event()
    backend = FakeGenerator(prefill_gate=gate)
    engine = engine_of(backend)
    tasks = [asyncio.create_task(text_of(engine.stream(ask()))) for _ in range(3)]
    await until_running(backend, 1)
    closing = asyncio.create_task(engine.close(30))
    while not engine.snapshot().draining:
        await asyncio.sleep(0)

    assert not engine.ready
    with pytest.raises(NotReady, match="being closed"):
        await text_of(engine.stream(ask()))
    gate.set()

    assert await asyncio.gather(*tasks) == ["one two three"] * 3
    await closing


async def test_closing_cancels_what_outlives_the_drain() -> None:
    backend = FakeGenerator(prefill_gate=threading.Event())
    books = Books()
    engine = engine_of(backend, books)
    tasks = [asyncio.create_task(text_of(engine.stream(ask()))) for _ in range(2)]
    await until_running(backend, 1)

    await engine.close(0.01)

    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [NotReady, NotReady]
    assert backend.wait_active(0)
    assert [outcome for outcome, _ in books.outcomes] == ["refused", "refused"]


async def test_every_request_is_counted_once_under_a_storm_of_cancels() -> None:
    backend = FakeGenerator(slots=3, script=lambda _: ["x"] * 50)
    books = Books()
    engine = engine_of(backend, books, slots=3, queue=100)
    tasks = [asyncio.create_task(text_of(engine.stream(ask()))) for _ in range(60)]
    for index, task in enumerate(tasks):
        if index % 3 == 0:
            await asyncio.sleep(0)
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await engine.close(10)

    kept = [result for result in results if isinstance(result, str)]
    assert kept
    assert all(text == "x" * 50 for text in kept)
    started = sum(1 for r in results if isinstance(r, str)) + sum(
        1 for outcome, _ in books.outcomes if outcome == "cancelled"
    )
    assert len(books.finished) == started
    assert engine.snapshot().running == engine.snapshot().depth == 0


class _Stubborn:
    """A backend that ignores cancellation until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    @property
    def spec(self) -> GeneratorSpec:
        return GeneratorSpec(model="stubborn", form="fake", context_tokens=10, slots=1)

    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        yield TokenEvent("x")
        self.let_go.wait()
        yield DoneEvent("cancelled" if cancel.cancelled else "stop", usage=Usage())

    def health(self) -> GeneratorHealth:
        return GeneratorHealth("ready")

    def close(self) -> None:
        self.let_go.set()

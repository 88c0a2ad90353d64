"""How a request's end is counted: one table, whoever served the request and whatever ended it."""

from __future__ import annotations

import asyncio

import pytest

from ondol.backends.fake_generator import FakeGenerator
from ondol.core.clock import ManualClock
from ondol.core.errors import OUTCOMES, Cancelled, DeadlineExceeded, OndolError, Refused
from ondol.core.events import Event, RequestFinished, Timing
from ondol.core.types import GenerationRequest, Message
from ondol.runtime.generation.generation import GenerationEngine
from ondol.runtime.outcomes import finished
from ondol.telemetry.goodput import Goodput

KINDS = sorted(OUTCOMES, key=lambda kind: kind.__name__)


class Books:
    """Notes how requests ended, and passes every event on to the goodput figures."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []
        self.goodput = Goodput(clock=ManualClock())

    def observe(self, event: Event) -> None:
        self.goodput.observe(event)
        if isinstance(event, RequestFinished):
            self.ends.append((event.outcome, event.code))

    @property
    def offered_and_rejected(self) -> tuple[int, int]:
        """Requests of all lanes over the last hour."""
        lanes = [windows["1h"] for windows in self.goodput.snapshot().values()]
        return sum(lane.offered for lane in lanes), sum(lane.rejected for lane in lanes)


def made(kind: type[OndolError]) -> OndolError:
    return kind("x", retry_after=1.0) if issubclass(kind, Refused) else kind("x")


async def of_the_generator(error: OndolError) -> Books:
    books = Books()
    engine = GenerationEngine(FakeGenerator(script=lambda request: error), slots=1, observer=books)
    with pytest.raises(type(error)):
        async for _ in engine.stream(GenerationRequest([Message("user", "a text")])):
            pass
    await engine.close()
    return books


def of_the_others(error: BaseException) -> Books:
    books = Books()
    with (
        pytest.raises(type(error)),
        finished(books, lane="embeddings", model="m", timing=Timing()),
    ):
        raise error
    return books


@pytest.mark.parametrize("kind", KINDS)
async def test_every_error_is_counted_alike_by_all_who_serve(kind: type[OndolError]) -> None:
    end = (OUTCOMES[kind].counted, kind.default_code)
    assert of_the_others(made(kind)).ends == [end]
    assert (await of_the_generator(made(kind))).ends == [end]


@pytest.mark.parametrize("kind", KINDS)
async def test_goodput_takes_refusals_and_nothing_else_as_rejected(kind: type[OndolError]) -> None:
    offered_and_rejected = (1, int(issubclass(kind, Refused)))
    assert of_the_others(made(kind)).offered_and_rejected == offered_and_rejected
    assert (await of_the_generator(made(kind))).offered_and_rejected == offered_and_rejected


def test_a_refusal_is_no_failure_and_neither_is_a_caller_that_left() -> None:
    counted = {kind: OUTCOMES[kind].counted for kind in KINDS}
    assert {kind for kind, how in counted.items() if how == "refused"} == {
        kind for kind in KINDS if issubclass(kind, Refused)
    }
    assert {kind for kind, how in counted.items() if how == "cancelled"} == {Cancelled}
    assert {kind for kind, how in counted.items() if how == "deadline"} == {DeadlineExceeded}
    assert "ok" not in counted.values()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
def test_a_task_that_was_cancelled_is_a_caller_that_left(error: BaseException) -> None:
    assert of_the_others(error).ends == [("cancelled", Cancelled.default_code)]


def test_a_bug_is_a_failure() -> None:
    assert of_the_others(KeyError("x")).ends == [("failed", "internal")]

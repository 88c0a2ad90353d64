"""How a request's end is counted: one table, whoever served the request and whatever ended it."""

from __future__ import annotations

import asyncio

import pytest

from ondol.backends.fake_generator import FakeGenerator
from ondol.core.errors import OUTCOMES, Cancelled, DeadlineExceeded, OndolError, Refused
from ondol.core.observe import Event, RequestFinished, Timing
from ondol.core.types import GenerationRequest, Message
from ondol.engine.generation import GenerationEngine
from ondol.services.outcomes import finished

KINDS = sorted(OUTCOMES, key=lambda kind: kind.__name__)


class Books:
    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, RequestFinished):
            self.ends.append((event.outcome, event.code))


def made(kind: type[OndolError]) -> OndolError:
    return kind("x", retry_after=1.0) if issubclass(kind, Refused) else kind("x")


async def of_the_generator(error: OndolError) -> tuple[str, str]:
    books = Books()
    engine = GenerationEngine(FakeGenerator(script=lambda request: error), slots=1, observer=books)
    with pytest.raises(type(error)):
        async for _ in engine.stream(GenerationRequest([Message("user", "a text")])):
            pass
    await engine.close()
    (end,) = books.ends
    return end


def of_the_others(error: BaseException) -> tuple[str, str]:
    books = Books()
    with (
        pytest.raises(type(error)),
        finished(books, lane="embeddings", model="m", timing=Timing()),
    ):
        raise error
    (end,) = books.ends
    return end


@pytest.mark.parametrize("kind", KINDS)
async def test_every_error_is_counted_alike_by_all_who_serve(kind: type[OndolError]) -> None:
    end = of_the_others(made(kind))
    assert end == (OUTCOMES[kind].counted, kind.default_code)
    assert await of_the_generator(made(kind)) == end


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
    assert of_the_others(error) == ("cancelled", Cancelled.default_code)


def test_a_bug_is_a_failure() -> None:
    assert of_the_others(KeyError("x")) == ("failed", "internal")

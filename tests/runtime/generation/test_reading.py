"""Bulk prompts are read in pieces while people ask, whole while nobody does."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from ondol.backends.fake_generator import FakeGenerator
from ondol.core.clock import ManualClock
from ondol.core.request_terms import RequestTerms
from ondol.core.types import GenerationRequest, Message
from ondol.runtime.generation.generation import GenerationEngine
from ondol.runtime.generation.policy import (
    ATTENTIVE_SECONDS,
    MOST_PIECES,
    PIECE_SECONDS,
    Reading,
    pieces,
)

LONG = "word " * 400


def request(text: str) -> GenerationRequest:
    return GenerationRequest(
        [Message("system", "be brief"), Message("user", text)], json_schema={"type": "object"}
    )


@given(st.text(max_size=60), st.floats(0, 1e6))
def test_pieces_are_ever_longer_beginnings_that_ask_for_one_token(
    text: str, prefill: float
) -> None:
    found = list(pieces(request(text), prefill=prefill))
    contents = [piece.messages[-1].content for piece in found]
    assert len(found) < MOST_PIECES
    assert all(text.startswith(one) and len(one) < len(text) for one in contents)
    assert contents == sorted(set(contents), key=len)
    assert all(piece.max_tokens == 1 and piece.json_schema is None for piece in found)
    assert all(piece.messages[0].content == "be brief" for piece in found)
    assert found or prefill <= PIECE_SECONDS or len(text) < 2


def test_nothing_is_read_ahead_when_nobody_has_asked_for_a_while() -> None:
    reading = Reading()
    assert not reading.expects(0.0)
    reading.asked(0.0)
    assert reading.expects(ATTENTIVE_SECONDS)
    assert not reading.expects(ATTENTIVE_SECONDS + 1)


async def prompts_read(*, keeps: bool = True, people: bool = True) -> list[int]:
    gate = threading.Event()
    backend = FakeGenerator(keeps_prefixes=keeps, prefill_gate=gate)
    engine = GenerationEngine(backend, slots=1, tokens_per_second=100.0, clock=ManualClock())
    if people:
        # Leaves at once, so that nothing is learnt of the speed.
        asked = asyncio.create_task(
            anext(engine.stream(request("hello"), terms=RequestTerms("search")))
        )
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
    gate.set()
    await asyncio.sleep(0)
    backend.order.clear()
    async for _ in engine.stream(request(LONG), terms=RequestTerms(lane="batch")):
        pass
    await engine.close(1.0)
    return [one.max_tokens for one in backend.order if one.messages[-1].content.startswith("word")]


async def test_a_bulk_prompt_is_read_in_pieces_beside_people_only() -> None:
    *parts, whole = await prompts_read()
    assert len(parts) > 2
    assert set(parts) == {1}
    assert whole > 1
    assert len(await prompts_read(people=False)) == 1


async def test_a_generator_that_keeps_nothing_reads_each_prompt_once() -> None:
    assert len(await prompts_read(keeps=False)) == 1

"""A follow-up is completed by rules or by the generator, and never fails for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from ondol.answers.rewriting import ConversationTurn, QueryRewriter
from ondol.backends.fake_generator import FakeGenerator, Script
from ondol.core.errors import Overloaded
from ondol.core.settings.sections import RetrievalSettings
from ondol.core.types import GenerationRequest
from ondol.runtime.generation.chat import ChatService
from ondol.runtime.generation.generation import GenerationEngine

HISTORY = [ConversationTurn("How often are laptops replaced?", "Every 38 months.")]
FOLLOW_UP = "And monitors?"
BY_RULES = "How often are laptops replaced? And monitors?"


@pytest.fixture
async def engines() -> AsyncIterator[list[GenerationEngine]]:
    opened: list[GenerationEngine] = []
    yield opened
    for engine in opened:
        await engine.close(0)


def rewriter(
    engines: list[GenerationEngine],
    script: Script,
    *,
    seconds: float = 5.0,
    gate: threading.Event | None = None,
) -> QueryRewriter:
    engine = GenerationEngine(FakeGenerator(script=script, prefill_gate=gate), slots=1)
    engines.append(engine)
    settings = RetrievalSettings(rewrite="generator", rewrite_seconds=seconds)
    return QueryRewriter(ChatService(engine, model="fake"), settings=settings)


async def test_rules_need_no_generator() -> None:
    found = await QueryRewriter(None, settings=RetrievalSettings()).meant(FOLLOW_UP, HISTORY)
    assert (found.asked, found.standalone, found.by) == (FOLLOW_UP, BY_RULES, "rules")
    assert found.also == (BY_RULES,)
    assert found.before == HISTORY[0].question


@pytest.mark.parametrize(
    ("how", "question", "history"),
    [
        ("off", FOLLOW_UP, HISTORY),
        ("rules", FOLLOW_UP, []),
        ("rules", "Who handles visa invitations in this company?", HISTORY),
        ("generator", "Who handles visa invitations in this company?", HISTORY),
    ],
)
async def test_what_stands_on_its_own_stays(
    how: str, question: str, history: list[ConversationTurn], engines: list[GenerationEngine]
) -> None:
    settings = RetrievalSettings.model_validate({"rewrite": how})
    found = await QueryRewriter(None, settings=settings).meant(question, history)
    assert (found.standalone, found.by, found.also) == (question, "", ())
    assert found.before == ""


async def test_the_generator_rewrites(engines: list[GenerationEngine]) -> None:
    seen: list[GenerationRequest] = []

    def script(request: GenerationRequest) -> list[str]:
        seen.append(request)
        return ["Rewritten question: ", "How often are monitors replaced?", "\nmore"]

    found = await rewriter(engines, script).meant(FOLLOW_UP, HISTORY)
    assert (found.standalone, found.by) == ("How often are monitors replaced?", "generator")
    assert found.before == HISTORY[0].question  # said by the user, not by the generator
    [request] = seen
    assert "38 months" in request.messages[-1].content


async def test_a_generator_that_is_late_busy_or_silent_leaves_it_to_the_rules(
    engines: list[GenerationEngine],
) -> None:
    def refuse(_request: GenerationRequest) -> Overloaded:
        return Overloaded("full", retry_after=1)

    gate = threading.Event()
    late = rewriter(engines, lambda _: ["x"], seconds=0.02, gate=gate)
    for one in (late, rewriter(engines, lambda _: ["…"]), rewriter(engines, refuse)):
        found = await one.meant(FOLLOW_UP, HISTORY)
        assert (found.standalone, found.by) == (BY_RULES, "rules")
    gate.set()


async def test_it_can_be_cancelled(engines: list[GenerationEngine]) -> None:
    gate = threading.Event()
    waiting = asyncio.ensure_future(
        rewriter(engines, lambda _: ["x"], gate=gate).meant(FOLLOW_UP, HISTORY)
    )
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()

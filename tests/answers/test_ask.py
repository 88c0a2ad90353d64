from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from ondol.answers.ask import AnswerDone, AskService, SourcesEvent
from ondol.answers.rewriting import ConversationTurn
from ondol.app.container import Container
from ondol.backends.fake_generator import FakeGenerator
from ondol.core.errors import Overloaded
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.types import GenerationRequest, TokenEvent
from ondol.runtime.generation.chat import ChatService
from ondol.runtime.generation.generation import GenerationEngine

ROWS = [
    {
        "id": "meal",
        "text": "야근 식대는 21시를 넘겨 일하면 1회 13,500원을 지급한다. 출장자는 제외한다.",
    },
    {"id": "leave", "text": "연차 휴가는 1년에 15일이다."},
]


def service_on(container: Container, engine: GenerationEngine) -> AskService:
    return AskService(
        container.retrieval,
        container.embedding,
        ChatService(engine, model="fake"),
        settings=container.settings.answer,
        context_tokens=400,
    )


async def asking(container: Container, reply: str) -> tuple[AskService, GenerationEngine]:
    await container.ingest.ingest_records("c", ROWS)

    def script(_request: GenerationRequest) -> list[str]:
        return [reply[i : i + 3] for i in range(0, len(reply), 3)]

    engine = GenerationEngine(FakeGenerator(script=script), slots=1)
    service = service_on(container, engine)
    return service, engine


@pytest.fixture
async def engines() -> AsyncIterator[list[GenerationEngine]]:
    opened: list[GenerationEngine] = []
    yield opened
    for engine in opened:
        await engine.close(0)


async def test_events_come_in_order_and_citations_point_at_the_stored_text(
    container: Container, engines: list[GenerationEngine]
) -> None:
    service, engine = await asking(container, "야근 식대는 1회 13,500원입니다.")
    engines.append(engine)
    events = [event async for event in service.stream("c", "야근 식대는 얼마인가요?")]
    assert isinstance(events[0], SourcesEvent)
    assert isinstance(events[-1], AnswerDone)
    answer = events[-1].answer
    shown = "".join(event.text for event in events if isinstance(event, TokenEvent))
    assert shown.strip() == answer.answer == "야근 식대는 1회 13,500원입니다. [1]"
    (citation,) = answer.citations
    stored = container.store.document("c", citation.document).text
    assert citation.document == "meal"
    assert stored[citation.start : citation.end] == citation.quote
    assert citation.verified
    assert not answer.abstained


async def test_an_invented_number_is_shown_with_a_warning_and_without_citation(
    container: Container, engines: list[GenerationEngine]
) -> None:
    service, engine = await asking(container, "야근 식대는 99,999원입니다 [1].")
    engines.append(engine)
    answer = await service.ask("c", "야근 식대는 얼마인가요?")
    assert answer.citations == []
    assert answer.unsupported_statements == 1
    assert answer.dropped_citations == 1
    assert "확인하지 못했습니다" in answer.answer


async def test_the_generators_own_not_found_is_an_abstention(
    container: Container, engines: list[GenerationEngine]
) -> None:
    service, engine = await asking(container, "문서에서 찾을 수 없습니다.")
    engines.append(engine)
    answer = await service.ask("c", "야근 식대는 얼마인가요?")
    assert answer.abstained
    assert answer.citations == []


async def test_nothing_relevant_abstains_without_asking_the_generator(
    container: Container, engines: list[GenerationEngine]
) -> None:
    service, engine = await asking(container, "지어낸 답")
    engines.append(engine)
    strict = container.settings.answer.model_copy(update={"min_relevance": 1.0})
    service._settings = strict
    answer = await service.ask("c", "화성 이주민의 우주복 색깔은?")
    assert answer.abstained
    assert answer.usage.prompt_tokens == 0
    assert answer.answer == "문서에서 찾을 수 없습니다."


async def test_a_client_that_leaves_frees_the_slot(
    container: Container, engines: list[GenerationEngine]
) -> None:
    await container.ingest.ingest_records("c", ROWS)
    gate = threading.Event()
    backend = FakeGenerator(script=lambda _request: ["야근 ", "식대"], decode_gate=gate)
    engine = GenerationEngine(backend, slots=1)
    engines.append(engine)
    service = service_on(container, engine)
    async with aclosing(service.stream("c", "야근 식대는?")) as events:
        async for event in events:
            if isinstance(event, TokenEvent):
                break
    async with asyncio.timeout(20):
        while engine.snapshot().running:
            await asyncio.sleep(0.01)
    gate.set()


async def test_a_full_queue_refuses_before_anything_is_streamed(
    container: Container, engines: list[GenerationEngine]
) -> None:
    await container.ingest.ingest_records("c", ROWS)
    gate = threading.Event()
    backend = FakeGenerator(script=lambda _request: ["야근 ", "식대"], prefill_gate=gate)
    lanes = LanesSettings.model_validate({"chat": {"queue": 1}})
    engine = GenerationEngine(backend, slots=1, lanes=lanes)
    engines.append(engine)
    service = service_on(container, engine)
    running = asyncio.create_task(service.ask("c", "야근 식대는?"))
    waiting = asyncio.create_task(service.ask("c", "야근 식대는?"))
    async with asyncio.timeout(20):
        while engine.snapshot().depth < 1:
            await asyncio.sleep(0.01)
    refused = service.stream("c", "야근 식대는?")
    with pytest.raises(Overloaded):
        await anext(refused)
    gate.set()
    answers = await asyncio.gather(running, waiting)
    assert [answer.answer.startswith("야근 식대") for answer in answers] == [True, True]


async def test_a_follow_up_is_answered_as_it_was_meant(
    container: Container, engines: list[GenerationEngine]
) -> None:
    await container.ingest.ingest_records("c", ROWS)
    seen: list[GenerationRequest] = []

    def script(request: GenerationRequest) -> list[str]:
        seen.append(request)
        return ["출장자는 제외합니다."]

    engine = GenerationEngine(FakeGenerator(script=script), slots=1)
    engines.append(engine)
    service = service_on(container, engine)
    history = [ConversationTurn("야근 식대는 얼마인가요?", "13,500원입니다.")]
    answer = await service.ask("c", "그럼 출장자는?", history=history)
    assert answer.understood == "야근 식대는 얼마인가요? 그럼 출장자는?"
    assert "야근 식대는 얼마인가요?" in seen[-1].messages[-1].content
    assert answer.citations[0].document == "meal"
    alone = await service.ask("c", "연차 휴가는 1년에 며칠이나 쓸 수 있나요?", history=history)
    assert alone.understood == "연차 휴가는 1년에 며칠이나 쓸 수 있나요?"

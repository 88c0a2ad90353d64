"""The default generator of a small machine: Korean, schemas and tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ondol.backends.llamacpp_generator import LlamaCppGenerator
from ondol.core.cancel import CancelToken
from ondol.core.errors import InvalidInput
from ondol.core.types import DoneEvent, GenerationRequest, Message, TokenEvent

pytestmark = pytest.mark.model

REVIEW = "음식은 훌륭했지만 주차가 불편하고 직원이 불친절했어요."


@pytest.fixture(scope="module")
def generator(korean_generator: Path) -> Iterator[LlamaCppGenerator]:
    opened = LlamaCppGenerator(korean_generator, model="korean", context_tokens=1024)
    yield opened
    opened.close()


def answer(generator: LlamaCppGenerator, text: str, **kwargs: Any) -> tuple[str, DoneEvent]:
    request = GenerationRequest([Message("user", text)], **kwargs)
    *pieces, done = generator.generate(request, cancel=CancelToken())
    assert isinstance(done, DoneEvent)
    return "".join(piece.text for piece in pieces if isinstance(piece, TokenEvent)), done


def test_korean_comes_whole(generator: LlamaCppGenerator) -> None:
    text, done = answer(generator, "대한민국의 수도는 어디인가요? 한 문장으로.", max_tokens=40)

    assert "서울" in text
    assert "\ufffd" not in text
    assert done.usage.completion_tokens > 0


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": False, "required": ["감정", "주제"],
         "properties": {
             "감정": {"enum": ["긍정", "부정", "중립"]},
             "주제": {"type": "array", "minItems": 1, "maxItems": 3,
                    "items": {"enum": ["음식", "서비스", "주차", "가격"]}}}},
        {"type": "object", "additionalProperties": False, "required": ["점수", "근거"],
         "properties": {
             "점수": {"type": "integer", "minimum": 1, "maximum": 5},
             "근거": {"type": "object", "additionalProperties": False, "required": ["인용"],
                    "properties": {"인용": {"type": "string", "maxLength": 40}}}}},
    ],
    ids=["enum and array", "nested"],
)  # fmt: skip
def test_a_review_becomes_json_of_the_shape_asked_for(
    generator: LlamaCppGenerator, schema: dict[str, Any]
) -> None:
    prompt = f"다음 리뷰를 분석하세요. ```json 블록으로 답하세요.\n\n{REVIEW}"
    text, done = answer(generator, prompt, max_tokens=200, json_schema=schema)

    result = json.loads(text)
    assert done.finish_reason == "stop"
    assert list(result) == schema["required"]
    if "감정" in result:
        assert result["감정"] in ("긍정", "부정", "중립")
        assert 1 <= len(result["주제"]) <= 3
        assert set(result["주제"]) <= {"음식", "서비스", "주차", "가격"}
    else:
        assert result["점수"] in range(1, 6)
        assert len(result["근거"]["인용"]) <= 40


def test_says_whether_tools_are_supported(
    generator: LlamaCppGenerator, tiny_generator: Path
) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    assert generator.spec.tools
    assert answer(generator, "서울 날씨?", tools=tools, max_tokens=8)[1].usage.prompt_tokens > 60

    tiny = LlamaCppGenerator(tiny_generator, model="tiny", context_tokens=512)
    try:
        assert not tiny.spec.tools
        with pytest.raises(InvalidInput, match="tools") as error:
            answer(tiny, "Weather?", tools=tools)
        assert error.value.param == "tools"
    finally:
        tiny.close()

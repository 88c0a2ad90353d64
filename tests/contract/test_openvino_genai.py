"""What only OpenVINO GenAI promises: isolation by stand-ins, a life after death, llama.cpp's prompt."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.generator_subjects import llama_server, open_genai

from ondol.backends.openvino_genai_generator import OpenVinoGenAIGenerator
from ondol.core.cancel import CancelToken
from ondol.core.errors import GeneratorDied, InvalidInput, TextTooLong
from ondol.core.types import DoneEvent, GenerationRequest, Message, TokenEvent

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]  # the form is built first

CONVERSATIONS = [
    [Message("user", "온돌이 무엇인가요? <b>&amp;</b> 🔥")],
    [Message("system", "You are terse."), Message("user", "Name three colours.\n\n")],
    [
        Message("system", "한국어로 답하세요."),
        Message("user", "안녕"),
        Message("assistant", "안녕하세요!"),
        Message("user", "  blanks  and\ttabs 12345 "),
    ],
]


@pytest.fixture(scope="module")
def generator(
    korean_generator: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenVinoGenAIGenerator]:
    pytest.importorskip("openvino_genai", reason="the extra openvino-genai is not installed")
    opened = open_genai(korean_generator, tmp_path_factory.mktemp("genai-korean"))
    yield opened
    opened.close()


def ask(text: str, **kwargs: Any) -> GenerationRequest:
    return GenerationRequest([Message("user", text)], **({"max_tokens": 8} | kwargs))


def run(generator: OpenVinoGenAIGenerator, request: GenerationRequest) -> tuple[str, DoneEvent]:
    *pieces, done = generator.generate(request, cancel=CancelToken())
    assert isinstance(done, DoneEvent)
    return "".join(p.text for p in pieces if isinstance(p, TokenEvent)), done


def until(ready: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(6000):
        if ready():
            return
        waiting.wait(0.01)
    raise TimeoutError("it did not come back within a minute")


def test_prompts_are_llama_cpps_token_for_token(
    generator: OpenVinoGenAIGenerator, korean_generator: Path
) -> None:
    with llama_server(korean_generator, key="judge") as judge:
        for messages in CONVERSATIONS:
            plain = [{"role": m.role, "content": m.content} for m in messages]
            body = {"messages": plain}
            prompt = judge.call("POST", "/apply-template", body=body, timeout=60).payload["prompt"]
            whole = {"content": prompt, "add_special": True, "parse_special": True}
            tokens = judge.call("POST", "/tokenize", body=whole, timeout=60).payload["tokens"]

            assert generator.prompt_ids(GenerationRequest(messages)) == tokens


def test_salts_share_answers_but_never_a_cache(generator: OpenVinoGenAIGenerator) -> None:
    prompt = "a secret of one tenant " * 30

    def told(salt: str) -> tuple[int, str]:
        text, done = run(generator, ask(prompt, cache_salt=salt))
        return done.usage.cached_tokens, text

    first = [told(salt) for salt in ("ann", "bob", "")]
    again = [told(salt) for salt in ("ann", "bob", "")]

    assert [cached for cached, _ in first] == [0, 0, 0]
    assert min(cached for cached, _ in again) > 100
    assert len({text for _, text in first + again}) == 1


def test_a_cached_prefix_is_not_read_again(generator: OpenVinoGenAIGenerator) -> None:
    """The library does not tell what it reused; the work it saves does (8 chunks against 1)."""
    document = "온돌은 구들장 아래로 불길을 지나가게 하여 방바닥을 데운다. " * 24
    _, cold = run(generator, ask(document + "요약하세요.", cache_salt="work", max_tokens=1))
    _, warm = run(generator, ask(document + "번역하세요.", cache_salt="work", max_tokens=1))

    assert cold.usage.cached_tokens == 0
    assert warm.usage.cached_tokens > 0.9 * warm.usage.prompt_tokens
    assert warm.usage.cached_tokens % 32 == 0
    assert warm.prefill_ms < cold.prefill_ms


def test_long_texts_are_counted_whole(generator: OpenVinoGenAIGenerator) -> None:
    """The library's tokenizer keeps 8,192 tokens of a text and says nothing of the others."""
    assert generator.count_tokens("word " * 20_000) >= 20_000
    with pytest.raises(TextTooLong, match="20,?0"):
        run(generator, ask("word " * 20_000))


def test_a_killed_child_is_told_and_comes_back(generator: OpenVinoGenAIGenerator) -> None:
    events = generator.generate(ask("Tell me a long story.", max_tokens=1500), cancel=CancelToken())
    next(events)
    assert generator.pid is not None
    os.kill(generator.pid, signal.SIGKILL)
    with pytest.raises(GeneratorDied, match="signal 9"):
        list(events)
    until(lambda: generator.health().ready)

    assert generator.health().restarts == 1
    assert run(generator, ask("Say yes."))[1].usage.completion_tokens > 0


def test_a_schema_that_only_the_compiler_rejects_is_blamed_on_its_owner(
    generator: OpenVinoGenAIGenerator,
) -> None:
    schema = {"type": "string", "pattern": "("}
    with pytest.raises(InvalidInput) as error:
        run(generator, ask("Hello", json_schema=schema))

    assert error.value.param == "response_format"
    until(lambda: generator.health().ready)
    assert run(generator, ask("Say yes."))[1].usage.completion_tokens > 0

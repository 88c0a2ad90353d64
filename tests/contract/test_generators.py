"""What every generator promises, asked of each: the fake, llama.cpp, and a real upstream."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import pytest
from tests.contract.generator_subjects import (
    CONTEXT,
    FakeSubject,
    GenAISubject,
    Subject,
    endpoint_of,
    llama_server,
    open_genai,
    open_llamacpp,
    open_upstream,
)

from ondol.backends.llamacpp_generator import LlamaCppGenerator
from ondol.core.cancel import CancelToken
from ondol.core.errors import InvalidInput, NotReady, TextTooLong
from ondol.core.types import (
    DoneEvent,
    GenerationEvent,
    GenerationRequest,
    Message,
    TokenEvent,
)

KINDS = [
    "fake",
    pytest.param("llamacpp", marks=pytest.mark.model),
    pytest.param("llamacpp-native", marks=[pytest.mark.model, pytest.mark.native]),
    pytest.param("openai", marks=pytest.mark.model),
    pytest.param("openvino-genai", marks=pytest.mark.model),
]
ONLY_LLAMACPP = [
    pytest.param("llamacpp", marks=pytest.mark.model),
    pytest.param("llamacpp-native", marks=[pytest.mark.model, pytest.mark.native]),
]


@pytest.fixture(scope="session")
def genai_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the form of the smallest generator is built once."""
    pytest.importorskip("openvino_genai", reason="the extra openvino-genai is not installed")
    return tmp_path_factory.mktemp("genai")


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        yield FakeSubject()
        return
    model = request.getfixturevalue("tiny_generator")
    if request.param == "openvino-genai":
        genai = open_genai(model, request.getfixturevalue("genai_folder"))
        with llama_server(model, key="judge") as judge:
            yield GenAISubject(genai, judge)
        genai.close()
        return
    if request.param.startswith("llamacpp"):
        subject = open_llamacpp(model, program=program_of(request.param, request))
        yield subject
        subject.generator.close()
        return
    with llama_server(model, key="upstream-key") as server:
        subject = open_upstream(server)
        yield subject
        subject.generator.close()


def program_of(kind: str, request: pytest.FixtureRequest) -> Path | None:
    """Return the ``llama-server`` of the native kind; ``None`` is the wheel's."""
    found: Path | None = None
    if kind == "llamacpp-native":
        found = request.getfixturevalue("native_program")
    return found


def ask(text: str, **kwargs: Any) -> GenerationRequest:
    return GenerationRequest([Message("user", text)], **({"max_tokens": 16} | kwargs))


def run(subject: Subject, request: GenerationRequest) -> tuple[str, DoneEvent]:
    """Generate to the end; checks the shape that every generation has."""
    events = list(subject.generator.generate(request, cancel=CancelToken()))
    *pieces, done = events
    assert isinstance(done, DoneEvent)
    assert all(isinstance(piece, TokenEvent) and piece.text for piece in pieces)
    return "".join(p.text for p in pieces if isinstance(p, TokenEvent)), done


class Background:
    """A generation in a thread of its own."""

    def __init__(self, subject: Subject, request: GenerationRequest) -> None:
        self.cancel = CancelToken()
        self.events: list[GenerationEvent] = []
        self.error: Exception | None = None
        self.first = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(subject, request))
        self._thread.start()

    def _run(self, subject: Subject, request: GenerationRequest) -> None:
        try:
            for event in subject.generator.generate(request, cancel=self.cancel):
                self.events.append(event)
                self.first.set()
        except Exception as error:
            self.error = error
        finally:
            self.first.set()

    def join(self) -> list[GenerationEvent]:
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.events


def test_streams_pieces_and_ends_with_one_done(subject: Subject) -> None:
    text, done = run(subject, ask("Tell me a story about a cat.", max_tokens=12))

    assert text.strip()
    assert done.finish_reason == "length"
    assert done.usage.completion_tokens == 12
    assert done.prefill_ms > 0
    assert done.decode_ms > 0


def test_greedy_is_repeatable(subject: Subject) -> None:
    request = ask("Name three colours.")

    assert run(subject, request)[0] == run(subject, request)[0]


def test_a_seed_makes_sampling_repeatable(subject: Subject) -> None:
    request = ask("Tell me a story.", temperature=1.0, seed=7)

    assert run(subject, request)[0] == run(subject, request)[0]


def test_prompt_tokens_are_the_tokens_of_the_prompt(subject: Subject) -> None:
    request = GenerationRequest(
        [Message("system", "You are terse."), Message("user", "온돌이 무엇인가요? <b>&amp;</b>")],
        max_tokens=1,
    )

    assert run(subject, request)[1].usage.prompt_tokens == subject.true_prompt_tokens(request)


def test_counts_tokens_without_template(subject: Subject) -> None:
    generator = subject.generator

    assert generator.count_tokens("") == 0
    assert generator.count_tokens("one") >= 1
    assert generator.count_tokens("one two three") > generator.count_tokens("one")


def test_an_ended_answer_says_stop(subject: Subject) -> None:
    schema = {"enum": ["yes"]}

    assert run(subject, ask("Say yes.", json_schema=schema))[1].finish_reason == "stop"


def test_stop_ends_the_text_before_it(subject: Subject) -> None:
    full, _ = run(subject, ask("Tell me a story of one two three.", max_tokens=24))
    stop = full.split()[4]

    text, done = run(subject, ask("Tell me a story of one two three.", max_tokens=24, stop=(stop,)))

    assert text == full[: full.index(stop)]
    assert done.finish_reason == "stop"


def test_cancelled_before_it_starts_yields_only_done(subject: Subject) -> None:
    cancel = CancelToken()
    cancel.cancel()

    [done] = subject.generator.generate(ask("Tell me a story."), cancel=cancel)

    assert isinstance(done, DoneEvent)
    assert done.finish_reason == "cancelled"


def test_cancel_in_prefill_ends_at_once_and_frees_the_slot(subject: Subject) -> None:
    request = ask("count " * 800 + "story", max_tokens=8)
    with subject.holding(prefill=True):
        running = Background(subject, request)
        subject.wait_busy(1)
        running.cancel.cancel()
        events = running.join()

    [done] = events
    assert isinstance(done, DoneEvent)
    assert done.finish_reason == "cancelled"
    subject.wait_busy(0)
    _, again = run(subject, ask(request.messages[0].content, max_tokens=1))
    if not isinstance(subject, FakeSubject):  # what a prefill to its end would have left behind
        assert again.usage.cached_tokens < again.usage.prompt_tokens / 2


def test_cancel_in_decode_ends_at_once_and_frees_the_slot(subject: Subject) -> None:
    with subject.holding(prefill=False):
        running = Background(subject, ask("Tell me a long story.", max_tokens=1500))
        assert running.first.wait(60)
        running.cancel.cancel()
        events = running.join()

    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert done.finish_reason == "cancelled"
    assert 0 < done.usage.completion_tokens < 1500
    subject.wait_busy(0)


def test_slots_run_side_by_side(subject: Subject) -> None:
    with subject.holding(prefill=False):
        requests = [ask(f"Tell me story {n}.", max_tokens=40) for n in range(2)]
        running = [Background(subject, request) for request in requests]
        subject.wait_busy(2)
    both = [background.join() for background in running]

    for events in both:
        assert isinstance(events[-1], DoneEvent)
        assert events[-1].usage.completion_tokens > 0


def test_an_abandoned_generation_frees_its_slot(subject: Subject) -> None:
    with subject.holding(prefill=False):
        events = subject.generator.generate(
            ask("Tell me a long story.", max_tokens=1500), cancel=CancelToken()
        )
        next(iter(events))
        assert isinstance(events, GeneratorType)
        events.close()

    subject.wait_busy(0)


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"v": {"enum": ["긍정", "부정"]}}, "required": ["v"],
     "additionalProperties": False},
    {"type": "object", "additionalProperties": False, "required": ["a", "b"], "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 9},
        "b": {"type": "object", "additionalProperties": False, "required": ["c"],
              "properties": {"c": {"type": "boolean"}}}}},
    {"type": "array", "minItems": 2, "maxItems": 2, "items": {"enum": ["x", "y"]}},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=["enum", "nested", "array"])
def test_json_schema_binds_the_output(subject: Subject, schema: dict[str, Any]) -> None:
    request = ask("Answer freely, in prose, no JSON.", max_tokens=200, json_schema=schema)
    text, done = run(subject, request)

    assert done.finish_reason == "stop"
    assert fits(json.loads(text), schema)


def test_a_bad_schema_is_named(subject: Subject) -> None:
    with pytest.raises(InvalidInput, match="objekt") as error:
        run(subject, ask("Hello", json_schema={"type": "objekt"}))

    assert error.value.param == "response_format"


def test_a_prompt_that_is_too_long_is_refused_with_both_counts(subject: Subject) -> None:
    words = 5000
    with pytest.raises(TextTooLong, match=r"50\d\d .*(2048|4096)"):
        run(subject, ask("count " * words))


def test_an_empty_conversation_is_refused(subject: Subject) -> None:
    with pytest.raises(InvalidInput, match="messages"):
        run(subject, GenerationRequest([]))


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 5, 7, 40])
def test_pieces_never_break_a_character(subject: Subject, max_tokens: int) -> None:
    sentence = "온돌은 🔥 한 아궁이로 따뜻하다"
    request = ask("Say it.", max_tokens=max_tokens, json_schema={"enum": [sentence]})
    text, _ = run(subject, request)

    assert "\ufffd" not in text
    whole = json.dumps(sentence, ensure_ascii=False)
    assert whole.startswith(text.strip())


def test_the_spec_is_what_was_asked_for(subject: Subject) -> None:
    assert subject.generator.spec.slots == 2
    assert subject.generator.spec.context_tokens in (CONTEXT, 4096)
    assert subject.generator.health().ready


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_generator_refuses(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "fake":
        check_closed(FakeSubject())
    elif kind.startswith("llamacpp"):
        model = request.getfixturevalue("tiny_generator")
        check_closed(open_llamacpp(model, program=program_of(kind, request)))
    else:
        with llama_server(request.getfixturevalue("tiny_generator"), key="k") as server:
            check_closed(open_upstream(server))


def check_closed(subject: Subject) -> None:
    assert subject.generator.health().ready
    subject.generator.close()
    subject.generator.close()

    assert subject.generator.health().state == "closed"
    with pytest.raises(NotReady) as refused:
        run(subject, ask("Hello"))
    assert refused.value.retry_after > 0


@pytest.mark.parametrize("subject", ONLY_LLAMACPP, indirect=True)
def test_salts_never_share_a_prompt_cache(subject: Subject) -> None:
    prompt = "a secret of one tenant " * 30

    def cached(salt: str) -> int:
        return run(subject, ask(prompt, cache_salt=salt, max_tokens=1))[1].usage.cached_tokens

    assert [cached("ann"), cached("bob"), cached("eve")] == [0, 0, 0]
    assert cached("eve") > 0
    assert cached("dan") == 0
    with pytest.raises(InvalidInput):
        run(subject, ask(prompt, cache_salt="mal", json_schema={"type": "objekt"}))
    assert cached("mal") == 0


@pytest.mark.parametrize("subject", ONLY_LLAMACPP, indirect=True)
def test_the_child_answers_nobody_without_the_key(subject: Subject) -> None:
    assert isinstance(subject.generator, LlamaCppGenerator)
    server = endpoint_of(subject.generator)
    stranger = type(server)(server.url)
    pages = ["/slots", "/props", "/v1/models", "/models", "/metrics", "/lora-adapters"]
    verbs = ["/v1/chat/completions", "/completion", "/tokenize", "/apply-template", "/infill"]

    for path in pages:
        assert stranger.call("GET", path, timeout=10).status == 401, path
    for path in [*verbs, "/slots/0?action=save", "/props"]:
        assert stranger.call("POST", path, body={}, timeout=10).status == 401, path
    assert stranger.call("GET", "/", timeout=10).status == 404


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether ``value`` fits the part of JSON Schema that these tests use."""
    if "enum" in schema:
        return value in schema["enum"]
    if schema["type"] == "object":
        return sorted(value) == sorted(schema["required"]) and all(
            fits(inner, schema["properties"][name]) for name, inner in value.items()
        )
    if schema["type"] == "array":
        return len(value) == schema["minItems"] and all(fits(v, schema["items"]) for v in value)
    if schema["type"] == "integer":
        return isinstance(value, int) and schema["minimum"] <= value <= schema["maximum"]
    return isinstance(value, bool)

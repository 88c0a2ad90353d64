"""How the upstream backend reads good, poor and broken servers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.backends.upstream import Handler, Upstream, piece, refusing, serving, streaming

from ondol.backends.openai_generator import OpenAIGenerator, ProbePace
from ondol.core.cancel import CancelToken
from ondol.core.errors import (
    BackendError,
    InvalidInput,
    NotReady,
    OndolError,
    Overloaded,
    SettingsError,
    TextTooLong,
)
from ondol.core.types import (
    DoneEvent,
    GenerationEvent,
    GenerationRequest,
    Message,
    TokenEvent,
    ToolCallEvent,
    Usage,
)

HELLO = GenerationRequest([Message("user", "Hello")], max_tokens=5)


def run(
    chat: Callable[[Handler], None], request: GenerationRequest = HELLO, **kwargs: Any
) -> list[GenerationEvent]:
    with serving(Upstream(chat=chat)) as upstream:
        generator = OpenAIGenerator(upstream.url, model="tiny", **kwargs)
        try:
            return list(generator.generate(request, cancel=CancelToken()))
        finally:
            generator.close()


def failure(chat: Callable[[Handler], None]) -> OndolError:
    with pytest.raises(OndolError) as error:
        run(chat)
    return error.value


def after(event: threading.Event, action: Callable[[], None]) -> threading.Thread:
    """Return a thread that does ``action`` once ``event`` is set."""

    def wait_and_act() -> None:
        event.wait(10)
        action()

    return threading.Thread(target=wait_and_act)


def test_reads_pieces_usage_and_finish() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    events = run(
        streaming(
            {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
            piece("안녕"),
            piece(" 온돌", finish="length"),
            {"choices": [], "usage": usage},
        )
    )

    assert events[:2] == [TokenEvent("안녕"), TokenEvent(" 온돌")]
    done = events[2]
    assert isinstance(done, DoneEvent)
    assert (done.finish_reason, done.usage) == ("length", Usage(9, 4, 2))


def test_does_without_usage_timings_or_done_marker() -> None:
    def chat(handler: Handler) -> None:
        handler.begin_stream()
        handler.event(piece("a"))
        handler.event(piece("b", finish="stop"))

    *pieces, done = run(chat)

    assert pieces == [TokenEvent("a"), TokenEvent("b")]
    assert isinstance(done, DoneEvent)
    assert done.usage == Usage(0, 0, 2)
    assert done.prefill_ms > 0


def test_passes_tool_calls_through() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    events = run(
        streaming(
            {"choices": [{"delta": {"tool_calls": [call]}}]},
            {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        )
    )

    assert events[0] == ToolCallEvent((call,))
    assert isinstance(events[1], DoneEvent)
    assert events[1].finish_reason == "tool_calls"


def test_sends_the_request_and_the_key() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    request = GenerationRequest(
        [
            Message("system", "s"),
            Message("assistant", "", tool_calls=[{"id": "c1"}]),
            Message("tool", "42", tool_call_id="c1"),
        ],
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=("END",),
        json_schema={"type": "object"},
        tools=tools,
        tool_choice="auto",
        cache_salt="ann",
    )
    with serving(Upstream(chat=streaming(piece("x", finish="stop")))) as upstream:
        for salted in (False, True):
            generator = OpenAIGenerator(
                upstream.url, model="tiny", key="secret", send_cache_salt=salted
            )
            list(generator.generate(request, cancel=CancelToken()))
            generator.close()

    plain, salted_body = upstream.bodies
    assert plain == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1"}]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "tools": tools,
        "tool_choice": "auto",
    }
    assert salted_body == plain | {"cache_salt": "ann"}
    assert upstream.headers[0]["Authorization"] == "Bearer secret"


VLLM = {"id": "tiny", "object": "model", "owned_by": "vllm", "max_model_len": 2048}


@pytest.mark.parametrize(("wanted", "sent"), [(None, True), (False, False)])
def test_vllm_gets_the_salt_and_gives_its_context(wanted: bool | None, sent: bool) -> None:
    """What vLLM lists, and what it sends: a first chunk with usage, counts of cached tokens last."""
    usage = {"prompt_tokens": 700, "total_tokens": 702, "completion_tokens": 2}
    details = {"prompt_tokens_details": {"cached_tokens": 640}}
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
            "usage": {"prompt_tokens": 700, "total_tokens": 700, "completion_tokens": 0}}  # fmt: skip
    last = {"choices": [], "usage": usage | details}
    upstream = Upstream(chat=streaming(role, piece("a"), piece("b", finish="stop"), last))
    upstream.models = {"object": "list", "data": [VLLM]}
    request = GenerationRequest([Message("user", "Hello")], cache_salt="ann")
    with serving(upstream):
        generator = OpenAIGenerator(upstream.url, model="", send_cache_salt=wanted)
        *_, done = generator.generate(request, cancel=CancelToken())
        generator.close()

    assert (generator.spec.model, generator.spec.context_tokens) == ("tiny", 2048)
    assert isinstance(done, DoneEvent)
    assert done.usage == Usage(700, 640, 2)
    assert ("cache_salt" in upstream.bodies[0]) is sent
    assert "guided_json" not in upstream.bodies[0]


def test_vllms_own_details_may_be_null() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": None}
    *_, done = run(streaming(piece("a", finish="stop"), {"choices": [], "usage": usage}))

    assert isinstance(done, DoneEvent)
    assert done.usage == Usage(9, 0, 1)


def test_tgis_overload_is_an_overload() -> None:
    error = failure(refusing(429, {"error": "Model is overloaded", "error_type": "overloaded"}))

    assert type(error) is Overloaded
    assert "Model is overloaded" in error.message


def test_asks_a_llama_server_for_progress_so_that_it_notices_a_cancel() -> None:
    upstream = Upstream(chat=streaming(piece("x", finish="stop")))
    upstream.models = {"data": [{"id": "tiny", "owned_by": "llamacpp"}]}
    with serving(upstream):
        generator = OpenAIGenerator(upstream.url, model="tiny")
        list(generator.generate(HELLO, cancel=CancelToken()))
        generator.close()

    assert upstream.bodies[0]["return_progress"] is True


def test_a_refused_key_is_named() -> None:
    error = failure(refusing(401, {"error": {"message": "Invalid API Key", "code": 401}}))

    assert type(error) is BackendError
    assert "401" in error.message
    assert "upstream_key" in error.hint


def test_an_unknown_model_lists_the_known_ones() -> None:
    error = failure(refusing(404, {"error": {"message": "model not found"}}))

    assert "'tiny'" in error.message
    assert error.hint.endswith("tiny, large")


@pytest.mark.parametrize(
    ("status", "kind"), [(429, Overloaded), (503, NotReady)], ids=["overloaded", "not ready"]
)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "17"}, 17.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": ""}, None),
        ({}, 5.0),
        ({"Retry_After": "soon"}, 5.0),
    ],
)
def test_retry_after_is_passed_on(
    status: int, kind: type[OndolError], headers: dict[str, str], seconds: float | None
) -> None:
    headers.pop("Date", None)
    error = failure(refusing(status, {"error": {"message": "busy"}}, **headers))

    assert isinstance(error, (Overloaded, NotReady))
    assert type(error) is kind
    assert error.retry_after >= 0 if seconds is None else error.retry_after == seconds


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"type": "exceed_context_size_error", "message": "request (9000 tokens) exceeds",
                   "n_prompt_tokens": 9000, "n_ctx": 4096}},
        {"error": {"code": "context_length_exceeded",
                   "message": "maximum is 4096 tokens, you sent 9000"}},
        {"object": "error", "code": 400,
         "message": "This model's maximum context length is 4096 tokens. You requested 9000"},
        {"error": {"type": "BadRequestError", "code": 400, "message":
         "The decoder prompt (length 9000) is longer than the maximum model length of 4096."}},
        {"error_type": "validation", "error": "Input validation error: `inputs` tokens + "
         "`max_new_tokens` must be <= 4096. Given: 9000 `inputs` tokens"},
    ],
    ids=["llama-server", "openai", "vllm", "vllm, newer", "tgi"],
)  # fmt: skip
def test_too_long_is_recognised_in_every_dialect(payload: dict[str, Any]) -> None:
    error = failure(refusing(400, payload))

    assert type(error) is TextTooLong
    assert "9000" in error.message
    assert "4096" in error.message


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"error": {"message": "top_k must be positive"}}, "top_k must be positive"),
        ({"error": "plain words"}, "plain words"),
        ({"detail": "no body"}, "no body"),
        (b"<html>oops</html>", "<html>oops"),
        (b"", "no reason given"),
        ([1], "no reason given"),
    ],
)
def test_a_rejected_request_is_invalid_input_with_the_reason(payload: Any, message: str) -> None:
    error = failure(refusing(400, payload))

    assert type(error) is InvalidInput
    assert message in error.message


def test_a_rejected_schema_is_named() -> None:
    reason = "Automatic parser generation failed: JSON schema error at #: unrecognized type objekt"
    error = failure(refusing(400, {"error": {"message": reason}}))

    assert error.param == "response_format"
    assert error.message.endswith("JSON schema error at #: unrecognized type objekt")


def test_an_error_inside_the_stream_is_raised() -> None:
    error = failure(
        streaming(piece("a"), {"error": {"code": 500, "message": "out of memory", "type": "x"}})
    )

    assert type(error) is BackendError
    assert "out of memory" in error.message


@pytest.mark.parametrize("rest", ["cut", "rubbish", "not an object"])
def test_a_stream_that_breaks_off_is_an_error(rest: str) -> None:
    def chat(handler: Handler) -> None:
        handler.begin_stream()
        handler.event(piece("a"))
        if rest == "rubbish":
            handler.event('{"choices": [')
        if rest == "not an object":
            handler.event("[1, 2]")

    error = failure(chat)

    assert type(error) is BackendError
    assert "mid-answer" in error.message


def test_silence_has_a_limit() -> None:
    with pytest.raises(BackendError, match="no answer in time"):
        run(lambda handler: handler.wait_for_departure(), silence_seconds=0.05)


@pytest.mark.parametrize("stage", ["before headers", "after headers", "in the middle"])
def test_a_cancel_hangs_up_on_a_silent_upstream(stage: str) -> None:
    reached = threading.Event()

    def chat(handler: Handler) -> None:
        if stage != "before headers":
            handler.begin_stream()
        if stage == "in the middle":
            handler.event(piece("a"))
        reached.set()
        handler.wait_for_departure()

    with serving(Upstream(chat=chat)) as upstream:
        generator = OpenAIGenerator(upstream.url, model="tiny")
        cancel = CancelToken()
        canceller = after(reached, cancel.cancel)
        canceller.start()
        *pieces, done = generator.generate(HELLO, cancel=cancel)
        assert upstream.left.wait(10)
        canceller.join()
        generator.close()

    assert pieces == ([TokenEvent("a")] if stage == "in the middle" else [])
    assert isinstance(done, DoneEvent)
    assert done.finish_reason == "cancelled"


def test_closing_hangs_up_and_refuses() -> None:
    reached = threading.Event()

    def chat(handler: Handler) -> None:
        reached.set()
        handler.wait_for_departure()

    with serving(Upstream(chat=chat)) as upstream:
        generator = OpenAIGenerator(upstream.url, model="tiny")
        closer = after(reached, generator.close)
        closer.start()
        with pytest.raises(NotReady, match="closed"):
            list(generator.generate(HELLO, cancel=CancelToken()))
        assert upstream.left.wait(10)
        closer.join()


def test_nobody_there_is_not_ready_and_heals_by_itself() -> None:
    upstream = Upstream(chat=streaming(piece("x", finish="stop")))
    with serving(upstream):
        pass  # its port is now known and free
    heard = threading.Event()
    generator = OpenAIGenerator(upstream.url, model="tiny", pace=ProbePace(well=60, ill=0.01))

    assert generator.health().state == "starting"
    with pytest.raises(NotReady, match="does not answer") as error:
        list(generator.generate(HELLO, cancel=CancelToken()))
    assert "generation.upstream" in error.value.hint
    generator.close()

    upstream.models_status = 503
    with serving(upstream):
        generator = OpenAIGenerator(
            upstream.url,
            model="tiny",
            pace=ProbePace(well=60, ill=0.01),
            on_state=lambda health: heard.set() if health.ready else None,
        )
        assert generator.health().state == "starting"
        upstream.models_status = 200
        assert heard.wait(10)
        assert generator.health().ready
        generator.close()


def test_a_broken_answer_makes_it_look_again_at_once() -> None:
    heard = threading.Event()
    upstream = Upstream(chat=lambda handler: handler.begin_stream())
    with serving(upstream):
        generator = OpenAIGenerator(
            upstream.url,
            model="tiny",
            pace=ProbePace(well=3600),
            on_state=lambda health: heard.set() if health.state == "restarting" else None,
        )
        assert generator.health().ready
        upstream.models_status = 500
        with pytest.raises(BackendError):
            list(generator.generate(HELLO, cancel=CancelToken()))

        assert heard.wait(10)
        assert "500" in generator.health().reason
        generator.close()


@pytest.mark.parametrize(
    ("tokenize", "count"), [({"tokens": [1, 2, 3]}, 3), ({"count": 4, "max_model_len": 9}, 4)]
)
def test_counts_tokens_by_the_upstreams_tokenizer(tokenize: dict[str, Any], count: int) -> None:
    with serving(Upstream(chat=streaming(), tokenize=tokenize)) as upstream:
        generator = OpenAIGenerator(upstream.url, model="tiny")
        assert generator.count_tokens("some text") == count
        generator.close()


def test_counts_tokens_by_usage_where_there_is_no_tokenizer() -> None:
    chat = refusing(200, {"choices": [], "usage": {"prompt_tokens": 11}})
    with serving(Upstream(chat=chat)) as upstream:
        generator = OpenAIGenerator(upstream.url, model="tiny")
        assert generator.count_tokens("some text") == 11
        generator.close()

    assert upstream.bodies[0]["max_tokens"] == 1


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1"])
def test_a_malformed_base_url_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="base URL"):
        OpenAIGenerator(url, model="tiny")

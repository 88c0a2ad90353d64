"""The OpenAI chat protocol: requests to JSON, streamed chunks to events, errors to our tree.

Shared by every backend that speaks it. Pure: knows no socket, no process and no model. Extra
fields of llama.cpp (``timings``, ``prompt_progress``) are used where a server sends them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ondol.backends.json_grammar import check_depth, check_schema
from ondol.core.clock import Clock
from ondol.core.errors import BackendError, InvalidInput, NotReady, OndolError, TextTooLong
from ondol.core.types import (
    DoneEvent,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Message,
    TokenEvent,
    ToolCallEvent,
    Usage,
)

_TOO_LONG = re.compile(
    r"context (length|size|window)|maximum (context|model length)|too many tokens"
    r"|tokens.{0,40} must be <=",
    re.I,
)
_SCHEMA = re.compile(r"json.?schema|response_format|grammar|guided|generate parser", re.I)
_OURS = re.compile(r"failed to parse (tools|messages)", re.I)
_FINISH: dict[str, FinishReason] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


def chat_body(request: GenerationRequest) -> dict[str, Any]:
    """Return the JSON body of a streamed chat completion; raises ``InvalidInput``."""
    _check(request)
    body: dict[str, Any] = {
        "messages": [_message(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.json_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": request.json_schema, "strict": True},
        }
    if request.tools:
        body["tools"] = list(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
    return body


class ChatStream:
    """Turns the chunks of one answer into events, and keeps what ``DoneEvent`` will say."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._first: float | None = None
        self._finish: FinishReason | None = None
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._progress: Mapping[str, Any] = {}
        self._pieces = 0

    @property
    def finished(self) -> bool:
        """Whether the other side has said why it stopped."""
        return self._finish is not None

    @property
    def prefilled(self) -> float:
        """The share of the prompt that has been read, as far as the other side has told."""
        if self._first is not None or self._finish is not None:
            return 1.0
        total = self._progress.get("total") or 0
        return float(self._progress.get("processed") or 0) / total if total else 0.0

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        """Yield the events in ``chunk``; raises what an error inside the stream stands for."""
        if "error" in chunk:
            raise error_of(chunk, status=200)
        self._usage = chunk.get("usage") or self._usage
        self._timings = chunk.get("timings") or self._timings
        self._progress = chunk.get("prompt_progress") or self._progress
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if delta.get("content"):
                self._count()
                yield TokenEvent(delta["content"])
            if delta.get("tool_calls"):
                self._count()
                yield ToolCallEvent(tuple(delta["tool_calls"]))
            if reason := choice.get("finish_reason"):
                self._finish = _FINISH.get(reason, "stop")

    def done(self, *, cancelled: bool) -> DoneEvent:
        """Return the last event.

        Counts and times are the server's own where it sent them. After a cancel it has sent none:
        then the prompt's counts are those of its last progress report and ``completion_tokens``
        is the number of pieces received. Times it never sends are measured here.
        """
        now = self._clock.monotonic()
        first = now if self._first is None else self._first
        details = self._usage.get("prompt_tokens_details") or {}
        usage = Usage(
            prompt_tokens=int(self._usage.get("prompt_tokens", self._progress.get("total", 0))),
            cached_tokens=int(
                details.get(
                    "cached_tokens", self._timings.get("cache_n", self._progress.get("cache", 0))
                )
                or 0
            ),
            completion_tokens=int(self._usage.get("completion_tokens", self._pieces)),
        )
        return DoneEvent(
            finish_reason="cancelled" if cancelled else self._finish or "stop",
            usage=usage,
            prefill_ms=float(self._timings.get("prompt_ms", (first - self._began) * 1e3)),
            decode_ms=float(self._timings.get("predicted_ms", (now - first) * 1e3)),
        )

    def _count(self) -> None:
        self._pieces += 1
        if self._first is None:
            self._first = self._clock.monotonic()


def error_of(payload: Any, *, status: int) -> OndolError:
    """Return the error that an OpenAI-style error payload stands for.

    Accepts the shapes servers really send: ``{"error": {…}}``, ``{"error": "text"}``,
    ``{"message": …}``, ``{"detail": …}``. A ``code`` inside it overrides a ``status`` of 200.
    """
    detail, message = _detail(payload)
    code = detail.get("code")
    if status == 200 and isinstance(code, int):
        status = code
    if _is_too_long(detail, message):
        return _too_long(detail, message)
    if status in (400, 413, 422) or _OURS.search(message):
        if _SCHEMA.search(message):
            return InvalidInput(
                f"the generator rejects the JSON schema: {_schema_reason(message)}",
                hint="simplify the schema, or mend the part named",
                param="response_format",
            )
        return InvalidInput(
            f"the generator rejects the request: {message}", hint="mend what it names"
        )
    if status == 503:
        return NotReady(
            f"the generator cannot serve now: {message}", retry_after=2.0, hint="try again shortly"
        )
    return BackendError(f"the generator failed: {message}", hint="see the generator's log")


def _detail(payload: Any) -> tuple[Mapping[str, Any], str]:
    body = payload if isinstance(payload, dict) else {}
    error = body.get("error", body)
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or "no reason given"
        return error, str(message)
    return {}, str(error) or "no reason given"


def _is_too_long(detail: Mapping[str, Any], message: str) -> bool:
    kinds = {str(detail.get("type")), str(detail.get("code"))}
    return (
        bool(kinds & {"exceed_context_size_error", "context_length_exceeded"})
        or _TOO_LONG.search(message) is not None
    )


def _too_long(detail: Mapping[str, Any], message: str) -> TextTooLong:
    prompt, context = detail.get("n_prompt_tokens"), detail.get("n_ctx")
    if prompt and context:
        message = f"the prompt has {prompt} tokens, the context of one request is {context}"
    return TextTooLong(
        message,
        hint="shorten the prompt, or raise generation.context_tokens",
        param="messages",
    )


def _schema_reason(message: str) -> str:
    _, mark, reason = message.partition("JSON schema error at ")
    return mark + reason if mark else message


def _check(request: GenerationRequest) -> None:
    """Refuse what servers would misread, crash on or answer with nonsense."""
    rules = [
        (bool(request.messages), "messages", "messages is empty", "send at least one message"),
        (request.max_tokens >= 1, "max_tokens", "is below 1", "ask for at least one token"),
        (
            0 <= request.temperature < math.inf,
            "temperature",
            "is not a number from 0 up",
            "0 is greedy, 1 is usual",
        ),
        (0 < request.top_p <= 1, "top_p", "is not in (0, 1]", "1 keeps every token"),
        (all(request.stop), "stop", "holds an empty text", "remove it"),
    ]
    for good, param, complaint, hint in rules:
        if not good:
            came = "" if param in ("messages", "stop") else f"{getattr(request, param)!r} "
            text = complaint if param == "messages" else f"{param} {came}{complaint}"
            raise InvalidInput(text, hint=hint, param=param)
    for index, message in enumerate(request.messages):
        try:
            message.content.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"messages[{index}] holds a lone surrogate at character {error.start}",
                hint="send valid Unicode",
                param=f"messages[{index}]",
            ) from None
    _check_nested(request)


def _check_nested(request: GenerationRequest) -> None:
    """Refuse JSON that the other side could not survive."""
    if request.json_schema is not None:
        check_schema(request.json_schema, param="response_format")
    for index, tool in enumerate(request.tools):
        param = f"tools[{index}]"
        check_depth(tool, param=param)
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidInput(
                f"{param} is not a function with a name",
                hint='send {"type": "function", "function": {"name": …, "parameters": …}}',
                param=param,
            )
        if isinstance(function.get("parameters"), Mapping):
            check_schema(function["parameters"], param=param)
    check_depth(request.tool_choice, param="tool_choice")
    for index, message in enumerate(request.messages):
        check_depth(message.tool_calls, param=f"messages[{index}].tool_calls")


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = list(message.tool_calls)
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body

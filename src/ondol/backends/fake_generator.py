"""A deterministic generator without weights, for tests and dry runs.

Echoes the last message word by word unless given a script; a token is a word. Records the order
of its calls, waits on gates that tests hold, and can die and come back. Knows no model.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ondol.backends.protocols import GeneratorHealth, GeneratorSpec
from ondol.core.cancel import CancelToken
from ondol.core.errors import GeneratorDied, InvalidInput, NotReady, OndolError, TextTooLong
from ondol.core.types import (
    DoneEvent,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TokenEvent,
    Usage,
)

Script = Callable[[GenerationRequest], Sequence[str] | OndolError]


def echo(request: GenerationRequest) -> list[str]:
    """Return the words of the last message, each with the blank before it.

    With a JSON schema: the JSON text of the least value that fits it.
    """
    if request.json_schema is not None:
        return [json.dumps(_least(request.json_schema), ensure_ascii=False)]
    words = request.messages[-1].content.split()
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)]


class FakeGenerator:
    """A ``Generator`` for tests.

    ``script`` turns a request into its pieces, or into the error to raise. ``prefill_gate`` and
    ``decode_gate`` (set by default) are waited on before the first and before every later piece;
    a cancel frees a waiting call. ``started`` counts calls that reached the gate, in ``order``.
    """

    def __init__(
        self,
        *,
        script: Script = echo,
        slots: int = 2,
        context_tokens: int = 4096,
        prefill_gate: threading.Event | None = None,
        decode_gate: threading.Event | None = None,
        tools: bool = False,
        keeps_prefixes: bool = False,
    ) -> None:
        self._spec = GeneratorSpec(
            model="fake-generator",
            form="fake",
            context_tokens=context_tokens,
            slots=slots,
            tools=tools,
            keeps_prefixes=keeps_prefixes,
        )
        self._script = script
        self._prefill_gate = prefill_gate
        self._decode_gate = decode_gate
        self._changed = threading.Condition()
        self._health = GeneratorHealth("ready")
        self._deaths = 0
        self._active = 0
        self._cached: dict[str, str] = {}
        self.order: list[GenerationRequest] = []
        self.peak = 0

    @property
    def spec(self) -> GeneratorSpec:
        return self._spec

    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        """Yield the script's pieces one by one, then ``DoneEvent``."""
        deaths = self._enter(request)
        try:
            yield from self._generate(request, cancel, deaths)
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(text.split())

    def health(self) -> GeneratorHealth:
        return self._health

    def close(self) -> None:
        self._become(GeneratorHealth("closed"))

    def die(self, reason: str = "killed by the test") -> None:
        """End every running call with ``GeneratorDied`` and refuse new ones until ``revive``."""
        with self._changed:
            self._deaths += 1
        self._become(GeneratorHealth("restarting", reason=reason, restarts=self._deaths))

    def revive(self) -> None:
        """Serve again."""
        self._become(GeneratorHealth("ready", restarts=self._deaths))

    def wait_active(self, count: int, *, timeout: float = 10.0) -> bool:
        """Wait until exactly ``count`` calls run; ``False`` when that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._active == count, timeout)

    def _become(self, health: GeneratorHealth) -> None:
        with self._changed:
            self._health = health
            self._changed.notify_all()

    def _enter(self, request: GenerationRequest) -> int:
        with self._changed:
            if not self._health.ready:
                raise NotReady(f"the fake generator is {self._health.state}", retry_after=1.0)
            self._active += 1
            self.peak = max(self.peak, self._active)
            self.order.append(request)
            self._changed.notify_all()
            return self._deaths

    def _generate(
        self, request: GenerationRequest, cancel: CancelToken, deaths: int
    ) -> Iterator[GenerationEvent]:
        prompt = " ".join(message.content for message in request.messages)
        prompt_tokens = self._check(request, prompt)
        cached = prompt_tokens if self._cached.get(prompt) == request.cache_salt else 0
        pieces, finish = self._pieces(request)
        sent = 0
        for piece in pieces:
            self._pass(self._decode_gate if sent else self._prefill_gate, cancel, deaths)
            if cancel.cancelled:
                break
            yield TokenEvent(piece)
            sent += 1
        self._cached[prompt] = request.cache_salt
        yield DoneEvent(
            finish_reason="cancelled" if cancel.cancelled else finish,
            usage=Usage(prompt_tokens, cached, sent),
            prefill_ms=float(prompt_tokens - cached),
            decode_ms=float(sent),
        )

    def _check(self, request: GenerationRequest, prompt: str) -> int:
        if not prompt.strip():
            raise InvalidInput(
                "messages is empty", hint="send at least one message", param="messages"
            )
        tokens = self.count_tokens(prompt)
        if tokens >= self._spec.context_tokens:
            raise TextTooLong(
                f"the prompt has {tokens} tokens, the context {self._spec.context_tokens}",
                hint="shorten the prompt",
                param="messages",
            )
        return tokens

    def _pieces(self, request: GenerationRequest) -> tuple[list[str], FinishReason]:
        """Return the script's pieces after ``stop`` and ``max_tokens``, and why they end."""
        scripted = self._script(request)
        if isinstance(scripted, OndolError):
            raise scripted
        pieces = list(scripted)
        text = "".join(pieces)
        ends = [text.index(stop) for stop in request.stop if stop in text]
        if ends:
            pieces = _cut(pieces, min(ends))
        if len(pieces) > request.max_tokens:
            return pieces[: request.max_tokens], "length"
        return pieces, "stop"

    def _pass(self, gate: threading.Event | None, cancel: CancelToken, deaths: int) -> None:
        """Wait for ``gate``, a cancel or a death."""
        if gate is not None and not gate.is_set():
            cancel.on_cancel(self._wake)
            with self._changed:
                while not (gate.is_set() or cancel.cancelled or self._deaths != deaths):
                    self._changed.wait(0.01)
        if self._deaths != deaths:
            raise GeneratorDied(
                "the fake generator died in mid-request", hint="send the request again"
            )

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _cut(pieces: Sequence[str], length: int) -> list[str]:
    """Return the pieces of the first ``length`` characters."""
    kept: list[str] = []
    for piece in pieces:
        if length <= 0:
            break
        kept.append(piece[:length])
        length -= len(piece)
    return kept


def _least(schema: Mapping[str, Any]) -> Any:
    """Return a small value that fits the common part of JSON Schema."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        names = schema.get("required", list(properties))
        return {name: _least(properties.get(name, {})) for name in names}
    if kind == "array":
        return [_least(schema.get("items", {}))] * int(schema.get("minItems", 0))
    plain = {"string": "", "number": 0, "integer": 0, "boolean": False, "null": None}
    if kind not in plain:
        raise InvalidInput(
            f"the JSON schema has the unknown type {kind!r}",
            hint="use a type of JSON Schema",
            param="response_format",
        )
    return schema.get("minimum", 0) if kind in ("number", "integer") else plain[kind]

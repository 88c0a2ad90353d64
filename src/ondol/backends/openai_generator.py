"""Any OpenAI-compatible chat server behind the ``Generator`` protocol.

For vLLM, SGLang, llama-server and Ollama. A thread asks the server for its models now and then, so
that ``health`` never blocks; a cancel closes the connection. Counts and times are the server's
where it sends them, else measured. Knows no process and no queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from ondol.backends.http_endpoint import (
    BadStatus,
    BrokenOff,
    Endpoint,
    HttpReply,
    Unreachable,
)
from ondol.backends.openai_wire import ChatStream, chat_body, error_of
from ondol.backends.protocols import GeneratorHealth, GeneratorSpec
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import BackendError, NotReady, OndolError, Overloaded
from ondol.core.types import GenerationEvent, GenerationRequest

_PROBE_SECONDS = 5.0
_COUNT_SECONDS = 60.0
_DEFAULT_RETRY_SECONDS = 5.0
_UNNAMED = "upstream"


@dataclass(frozen=True, slots=True)
class ProbePace:
    """Seconds between two looks at the upstream while it is well, and while it is not."""

    well: float = 10.0
    ill: float = 1.0


class OpenAIGenerator:
    """A chat model behind a base URL such as ``http://host:8000/v1``.

    ``model`` is the upstream's name for it; empty takes the first that it lists. ``silence_seconds``
    bounds each silence of the upstream. ``send_cache_salt`` passes ``cache_salt`` on, which vLLM
    understands and others may refuse; ``None`` does so where the upstream says that it is vLLM.
    Without it, whether callers share a prompt cache is the upstream's affair. A context that the
    upstream lists as smaller than ``context_tokens`` is taken over.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        key: str = "",
        context_tokens: int = 4096,
        slots: int = 2,
        tools: bool = True,
        send_cache_salt: bool | None = None,
        silence_seconds: float = 300.0,
        pace: ProbePace | None = None,
        clock: Clock | None = None,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        self._endpoint = Endpoint(base_url.rstrip("/"), key=key)
        self._clock = clock or SystemClock()
        self._send_cache_salt = send_cache_salt
        self._silence_seconds = silence_seconds
        self._pace = pace or ProbePace()
        self._on_state = on_state
        self._spec = GeneratorSpec(
            model=model or _UNNAMED,
            form="openai",
            context_tokens=context_tokens,
            slots=slots,
            device="remote",
            tools=tools,
        )
        self._lock = threading.Lock()
        self._running: set[CancelToken] = set()
        self._closing = threading.Event()
        self._look_now = threading.Event()
        self._is_llama_server = self._is_vllm = False
        self._health = GeneratorHealth("starting", reason="the upstream has not been asked yet")
        self._probe()
        self._thread = threading.Thread(target=self._watch, name="ondol-upstream", daemon=True)
        self._thread.start()

    @property
    def spec(self) -> GeneratorSpec:
        return self._spec

    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        """Yield pieces, then one ``DoneEvent``; see ``Generator``.

        Raises ``Overloaded`` (429) and ``NotReady`` (503, nobody answers) with the upstream's
        ``Retry-After``, and ``BackendError`` when it refuses the key or model or breaks off.
        """
        body = chat_body(request) | {"model": self._spec.model}
        salted = self._is_vllm if self._send_cache_salt is None else self._send_cache_salt
        if salted and request.cache_salt:
            body["cache_salt"] = request.cache_salt
        if self._is_llama_server:
            # Without progress to write, it notices that we left only after the whole prefill.
            body["return_progress"] = True
        hang_up = CancelToken()
        cancel.on_cancel(hang_up.cancel)
        self._enter(hang_up)
        try:
            chat = ChatStream(clock=self._clock)
            for chunk in self._chunks(body, chat, hang_up):
                yield from chat.feed(chunk)
            if self._closing.is_set() and not (chat.finished or cancel.cancelled):
                raise _closed()
            yield chat.done(cancelled=cancel.cancelled and not chat.finished)
        finally:
            with self._lock:
                self._running.discard(hang_up)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of ``text``.

        Asks ``/tokenize`` (llama-server's and vLLM's shapes). Where the upstream has none, counts
        the prompt of a one-token request, which includes its chat template.
        """
        if self._closing.is_set():
            raise _closed()
        root = Endpoint(self._endpoint.url.removesuffix("/v1"), key=self._endpoint.key)
        body = {
            "model": self._spec.model,
            "content": text,
            "prompt": text,
            "add_special_tokens": False,
        }
        reply = self._call(root, "/tokenize", body)
        if reply.status == 200 and isinstance(reply.payload, dict):
            tokens = reply.payload.get("tokens")
            return len(tokens) if isinstance(tokens, list) else int(reply.payload["count"])
        body = {
            "model": self._spec.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 1,
        }
        reply = self._call(self._endpoint, "/chat/completions", body)
        usage = reply.payload.get("usage") if isinstance(reply.payload, dict) else None
        if reply.status != 200 or not usage:
            raise self._refusal(reply)
        return int(usage["prompt_tokens"])

    def health(self) -> GeneratorHealth:
        """Return what the last look at the upstream saw; never blocks."""
        return self._health

    def close(self) -> None:
        """Hang up every running call, which then raises ``NotReady``, and stop looking."""
        self._closing.set()
        self._look_now.set()
        with self._lock:
            running = list(self._running)
        for token in running:
            token.cancel()
        self._thread.join(_PROBE_SECONDS * 2)
        self._become(GeneratorHealth("closed"))

    def _enter(self, token: CancelToken) -> None:
        with self._lock:
            if self._closing.is_set():
                raise _closed()
            self._running.add(token)

    def _chunks(
        self, body: dict[str, Any], chat: ChatStream, cancel: CancelToken
    ) -> Iterator[dict[str, Any]]:
        """Yield the upstream's chunks; what goes wrong on the way leaves as one of our errors."""
        try:
            yield from self._endpoint.stream(
                "/chat/completions", body=body, cancel=cancel, timeout=self._silence_seconds
            )
        except BadStatus as error:
            raise self._refusal(error.reply) from error
        except Unreachable as error:
            raise self._unreachable(error) from error
        except BrokenOff as error:
            self._look_now.set()
            raise BackendError(
                f"the upstream {self._endpoint.url} broke off in mid-answer: {error}",
                hint="see the upstream's log; send the request again",
            ) from error
        if not (chat.finished or cancel.cancelled):
            self._look_now.set()
            raise BackendError(
                f"the upstream {self._endpoint.url} stopped in mid-answer",
                hint="see the upstream's log; send the request again",
            )

    def _call(self, endpoint: Endpoint, path: str, body: dict[str, Any]) -> HttpReply:
        try:
            return endpoint.call("POST", path, body=body, timeout=_COUNT_SECONDS)
        except (Unreachable, BrokenOff) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> NotReady:
        self._look_now.set()
        return NotReady(
            f"the upstream {self._endpoint.url} does not answer: {error}",
            retry_after=_DEFAULT_RETRY_SECONDS,
            hint="start it, or mend generation.upstream",
        )

    def _refusal(self, reply: HttpReply) -> OndolError:
        """Return the error that a status other than 200 stands for."""
        plain = error_of(reply.payload, status=reply.status)
        where = f"the upstream {self._endpoint.url}"
        if reply.status in (401, 403):
            return BackendError(
                f"{where} refuses the key ({reply.status}): {plain.message}",
                hint="set generation.upstream_key (ONDOL_GENERATION_UPSTREAM_KEY)",
            )
        if reply.status == 404:
            return BackendError(
                f"{where} has no model {self._spec.model!r}: {plain.message}",
                hint=f"set generation.model to one of: {self._models()}",
            )
        if reply.status == 429:
            return Overloaded(
                f"{where} is overloaded: {plain.message}",
                retry_after=_retry_after(reply),
                hint="send again after Retry-After seconds",
            )
        if reply.status == 503:
            return NotReady(
                f"{where} cannot serve now: {plain.message}",
                retry_after=_retry_after(reply),
                hint="send again after Retry-After seconds",
            )
        return plain

    def _models(self) -> str:
        """Return the upstream's model names, for a hint."""
        try:
            reply = self._endpoint.call("GET", "/models", timeout=_PROBE_SECONDS)
        except (Unreachable, BrokenOff):
            return "(the upstream does not answer)"
        names = [str(model.get("id")) for model in _listed(reply)]
        return ", ".join(names) or "(the upstream lists none)"

    def _watch(self) -> None:
        """Look at the upstream again and again, soon after a failure."""
        while not self._closing.is_set():
            pace = self._pace.well if self._health.ready else self._pace.ill
            self._look_now.wait(pace)
            self._look_now.clear()
            if not self._closing.is_set():
                self._probe()

    def _probe(self) -> None:
        try:
            reply = self._endpoint.call("GET", "/models", timeout=_PROBE_SECONDS)
        except (Unreachable, BrokenOff) as error:
            self._become(self._ill(str(error)))
            return
        if reply.status == 200:
            models = _listed(reply)
            self._is_llama_server = any(m.get("owned_by") == "llamacpp" for m in models)
            self._is_vllm = any(m.get("owned_by") == "vllm" for m in models)
            self._take_over(models)
            self._become(GeneratorHealth("ready", restarts=self._health.restarts))
        else:
            key = " (set generation.upstream_key)" if reply.status in (401, 403) else ""
            self._become(self._ill(f"GET /models answers {reply.status}{key}"))

    def _take_over(self, models: list[dict[str, Any]]) -> None:
        """Learn the model's name, where none was given, and its context, where it is listed."""
        if self._spec.model == _UNNAMED and models:
            self._spec = replace(self._spec, model=str(models[0].get("id")))
        listed = next((m for m in models if m.get("id") == self._spec.model), {})
        context = listed.get("max_model_len")  # vLLM and SGLang
        if isinstance(context, int) and 0 < context < self._spec.context_tokens:
            self._spec = replace(self._spec, context_tokens=context)

    def _ill(self, reason: str) -> GeneratorHealth:
        was_ready = self._health.ready
        return GeneratorHealth(
            "restarting" if was_ready or self._health.restarts else "starting",
            reason=f"the upstream {self._endpoint.url}: {reason}",
            restarts=self._health.restarts + was_ready,
        )

    def _become(self, health: GeneratorHealth) -> None:
        changed = health.state != self._health.state
        self._health = health
        if changed and self._on_state is not None:
            self._on_state(health)


def _listed(reply: HttpReply) -> list[dict[str, Any]]:
    """Return the entries of a model list, however odd the answer."""
    data = reply.payload.get("data") if isinstance(reply.payload, dict) else None
    return [model for model in data or () if isinstance(model, dict)]


def _closed() -> NotReady:
    return NotReady(
        "the generator has been closed",
        retry_after=_DEFAULT_RETRY_SECONDS,
        hint="send again when the server is back",
    )


def _retry_after(reply: HttpReply) -> float:
    """Return ``Retry-After`` in seconds (RFC 9110 allows a number or a date), else a default."""
    value = reply.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
        now = parsedate_to_datetime(reply.headers["date"])
    except (KeyError, ValueError):
        return _DEFAULT_RETRY_SECONDS
    return max(0.0, (until - now).total_seconds())

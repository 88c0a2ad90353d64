"""llama.cpp behind the ``Generator`` protocol, in a supervised child process.

Speaks HTTP with the child over loopback with a random key. A cancel closes the connection, which
frees the slot within one prefill chunk (``batch_tokens``). Prompts are cached per slot and never
shared between salts or adapters. Knows no queue: at most ``slots`` calls run at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.backends.http_endpoint import BadStatus, BrokenOff, Endpoint, Unreachable
from ondol.backends.json_grammar import grammar_of
from ondol.backends.llamacpp_process import (
    ChildSetup,
    LlamaCppChild,
    Supervisor,
    SupervisorLimits,
    Watch,
)
from ondol.backends.llamacpp_slots import (
    Adapter,
    Outcome,
    Prefix,
    Preloader,
    SlotLease,
    SlotOwner,
    SlotTable,
    check_adapters,
    lora_body,
)
from ondol.backends.openai_wire import ChatStream, chat_body, error_of
from ondol.backends.protocols import GeneratorHealth, GeneratorSpec
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import (
    BackendError,
    GeneratorDied,
    InvalidInput,
    ModelError,
    NotReady,
    OndolError,
    Overloaded,
)
from ondol.core.machine import usable_cores
from ondol.core.types import DoneEvent, GenerationEvent, GenerationRequest, TokenEvent

_log = logging.getLogger("ondol.llamacpp")

_CALL_SECONDS = 60.0
_DEATH_SECONDS = 5.0
_RESTART_SECONDS = 5.0
_GGUF_MAGIC = b"GGUF"


class LlamaCppGenerator:
    """A GGUF model served by llama.cpp.

    Returns when the model is loaded, unless ``wait`` is false: then ``health()`` is ``starting``
    until it is. ``threads`` 0 takes the cores this process may use; ``device`` ``cpu`` keeps all
    layers on the processor. ``program`` is a ``llama-server`` built here, in place of the wheel's.
    Raises ``ModelError`` when the file cannot be loaded, ``SettingsError`` for an adapter's.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        model: str,
        form: str = "llamacpp:gguf",
        context_tokens: int = 4096,
        slots: int = 2,
        threads: int = 0,
        batch_tokens: int = 256,
        cache_mib: int = 0,
        device: str = "auto",
        adapters: Sequence[Adapter] = (),
        program: Path | None = None,
        wait: bool = True,
        patience: SupervisorLimits | None = None,
        clock: Clock | None = None,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        _check_file(model_path)
        check_adapters(adapters)
        self._clock = clock or SystemClock()
        self._adapters = tuple(adapters)
        self._heard = on_state
        self._spec = GeneratorSpec(
            model=model,
            form=form,
            context_tokens=context_tokens,
            slots=slots,
            device="cpu" if device == "cpu" else "auto",
            prefills=1,
            keeps_prefixes=True,
            adapters=tuple(adapter.name for adapter in adapters),
        )
        self._table = SlotTable(slots)
        self._preloader = Preloader(self._read_prefix)
        self._supervisor = Supervisor(
            ChildSetup(
                model_path=model_path,
                context_tokens=context_tokens,
                slots=slots,
                threads=threads or usable_cores(),
                batch_tokens=batch_tokens,
                cache_mib=cache_mib,
                gpu_layers=0 if device == "cpu" else -1,
                adapters=tuple(adapter.path for adapter in adapters),
                program=program,
            ),
            inspect=self._inspect,
            patience=patience or SupervisorLimits(),
            on_state=self._hear,
        )
        if wait:
            self._wait_started(model_path)

    @property
    def spec(self) -> GeneratorSpec:
        """What was asked for, until the model is loaded; then what it is."""
        return self._spec

    @property
    def child(self) -> LlamaCppChild | None:
        """The process behind this generator at this moment, for diagnosis."""
        return self._supervisor.child

    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        """Yield pieces, then one ``DoneEvent``; see ``Generator``. ``Overloaded`` beyond ``slots``."""
        body = _body(request) | lora_body(self._adapters, chosen=request.adapter)
        if request.tools and not self._spec.tools and self.health().ready:
            raise InvalidInput(
                f"the chat template of {self._spec.model} has no place for tools",
                hint="choose a generator that supports tools, or send none",
                param="tools",
            )
        watch = self._begin()
        table = self._table
        finished = False
        try:
            lease = self._lease(table, request)
            try:
                for event in self._events(body, watch, table, lease, cancel):
                    finished = isinstance(event, DoneEvent)
                    yield event
            finally:
                self._preloader.chance()
        finally:
            self._supervisor.end(watch, finished=finished)

    def cached_chars(self, request: GenerationRequest) -> int:
        """Return how many characters of the request's prompt a slot holds; see ``PrefixAware``."""
        return self._table.cached_chars(_owner(request), prompt=_prompt(request))

    def preload(self, prefixes: Sequence[Prefix]) -> None:
        """Read ``prefixes`` into blank slots when nobody else wants them; see ``Preloading``."""
        self._preloader.set(prefixes)

    def wait_preloaded(self, timeout: float) -> bool:
        """Return whether every prefix has been read within ``timeout`` seconds."""
        return self._preloader.wait_read(timeout)

    def count_tokens(self, text: str) -> int:
        """Return the true number of tokens of ``text``, without template or special tokens."""
        watch = self._begin()
        try:
            reply = _endpoint(watch).call(
                "POST", "/tokenize", body={"content": text}, timeout=_CALL_SECONDS
            )
        except (Unreachable, BrokenOff) as error:
            raise self._broken(watch, error) from error
        finally:
            self._supervisor.end(watch, finished=False)
        if reply.status != 200:
            raise error_of(reply.payload, status=reply.status)
        return len(reply.payload["tokens"])

    def health(self) -> GeneratorHealth:
        """Return the child's state; never blocks."""
        return self._supervisor.health()

    def close(self) -> None:
        """End the child; running calls raise ``NotReady``."""
        self._preloader.close()
        self._supervisor.close()

    def _events(
        self,
        body: dict[str, Any],
        watch: Watch,
        table: SlotTable,
        lease: SlotLease,
        cancel: CancelToken,
    ) -> Iterator[GenerationEvent]:
        """Yield one request's events from its slot, and give the slot back."""
        chat = ChatStream(clock=self._clock)
        said: list[str] = []
        began = False
        body = body | {"id_slot": lease.index, "cache_prompt": lease.reuse}
        try:
            for chunk in self._chunks(body, watch, chat, cancel):
                table.confirm(lease)
                began = True
                for event in chat.feed(chunk):
                    if isinstance(event, TokenEvent):
                        said.append(event.text)
                    yield event
            yield chat.done(cancelled=cancel.cancelled and not chat.finished)
        finally:
            answer = "\nassistant\n" + "".join(said) if said else ""
            table.release(lease, answer=answer, read=chat.prefilled if began else 1.0)

    def _lease(self, table: SlotTable, request: GenerationRequest) -> SlotLease:
        """Return a slot; a prefix that is being read makes room."""
        owner, prompt = _owner(request), _prompt(request)
        self._preloader.give_way()
        try:
            return table.lease(owner, prompt=prompt)
        except Overloaded:
            if not self._preloader.give_way():
                raise
            return table.lease(owner, prompt=prompt)

    def _read_prefix(self, prefix: Prefix, cancel: CancelToken) -> Outcome:
        """Read one standing prefix into a blank slot of a generator at rest."""
        request = GenerationRequest(prefix, max_tokens=1)
        watch = self._supervisor.begin()
        if watch is None:
            return "later"
        table = self._table
        try:
            lease = table.lease_blank(prompt=_prompt(request))
            if lease is None:
                return "later"
            body = chat_body(request) | lora_body(self._adapters, chosen="")
            for _ in self._events(body, watch, table, lease, cancel):
                pass
        except (GeneratorDied, NotReady):
            return "later"
        except OndolError as error:
            _log.warning("a standing prefix could not be read: %s", error.message)
            return "never"
        finally:
            self._supervisor.end(watch, finished=False)
        return "later" if cancel.cancelled else "read"

    def _hear(self, health: GeneratorHealth) -> None:
        if health.ready:
            self._preloader.begin()
        if self._heard is not None:
            self._heard(health)

    def _chunks(
        self, body: dict[str, Any], watch: Watch, chat: ChatStream, cancel: CancelToken
    ) -> Iterator[dict[str, Any]]:
        """Yield the child's chunks; what goes wrong on the way leaves as one of our errors."""
        try:
            yield from _endpoint(watch).stream(
                "/v1/chat/completions",
                body=body | {"return_progress": True},
                cancel=cancel,
                on_bytes=watch.news,
            )
        except BadStatus as error:
            raise error_of(error.reply.payload, status=error.reply.status) from error
        except (Unreachable, BrokenOff) as error:
            raise self._broken(watch, error) from error
        if not (chat.finished or cancel.cancelled):
            raise self._broken(watch, BrokenOff("the answer stopped without an end"))

    def _begin(self) -> Watch:
        watch = self._supervisor.begin()
        if watch is not None:
            return watch
        health = self._supervisor.health()
        reason = f": {health.reason}" if health.reason else ""
        raise NotReady(
            f"the generator is {health.state}{reason}",
            retry_after=_RESTART_SECONDS,
            hint="see /health/ready; send again after Retry-After",
        )

    def _broken(self, watch: Watch, error: Exception) -> Exception:
        """Return what a broken connection means: the child died, was closed, or misbehaved."""
        if not watch.child.dead.wait(_DEATH_SECONDS):
            return BackendError(f"llama.cpp broke off: {error}", hint="see the generator's log")
        if self._supervisor.health().state == "closed":
            return NotReady(
                "the generator has been closed",
                retry_after=_RESTART_SECONDS,
                hint="send again when the server is back",
            )
        return GeneratorDied(
            f"the generator process died in mid-request: {watch.child.describe_end()}",
            hint="it restarts by itself: send the request again in a few seconds",
        )

    def _inspect(self, endpoint: Endpoint) -> None:
        """Take over from a new child what it really is, and forget the slots of the last one."""
        slots = _get(endpoint, "/slots")
        caps = _get(endpoint, "/props").get("chat_template_caps") or {}
        self._table = SlotTable(len(slots))
        self._spec = replace(
            self._spec,
            context_tokens=min(slot["n_ctx"] for slot in slots),
            slots=len(slots),
            tools=bool(caps.get("supports_tools")),
        )

    def _wait_started(self, model_path: Path) -> None:
        try:
            health = self._supervisor.wait_started()
        except BaseException:
            self.close()
            raise
        if health.state == "failed":
            self.close()
            raise ModelError(
                f"{model_path.name} could not be loaded: {health.reason}",
                hint="check the file with `ondol models pull`; if memory ran out, choose a "
                "smaller model, fewer generation.slots or less generation.context_tokens",
            )


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", hint="fetch it with `ondol models pull`"
        ) from None
    if magic != _GGUF_MAGIC:
        raise ModelError(
            f"{path} is not a GGUF file: it begins with {magic!r}",
            hint="fetch it again with `ondol models pull`",
        )


def _endpoint(watch: Watch) -> Endpoint:
    endpoint = watch.child.endpoint
    if endpoint is None:
        raise BackendError("llama.cpp is ready without an address", hint="see the log")
    return endpoint


def _get(endpoint: Endpoint, path: str) -> Any:
    reply = endpoint.call("GET", path, timeout=_CALL_SECONDS)
    if reply.status != 200:
        raise error_of(reply.payload, status=reply.status)
    return reply.payload


def _owner(request: GenerationRequest) -> SlotOwner:
    return SlotOwner(salt=request.cache_salt, adapter=request.adapter)


def _body(request: GenerationRequest) -> dict[str, Any]:
    """Return what the server is sent: the schema as a grammar without blanks, where it has one."""
    body = chat_body(request)
    if request.json_schema is not None and not request.tools:
        grammar = grammar_of(request.json_schema)
        if grammar is not None:
            del body["response_format"]
            body["grammar"] = grammar
    return body


def _prompt(request: GenerationRequest) -> str:
    """Return the text by which two prompts are compared for a shared beginning."""
    return "\n".join(f"{message.role}\n{message.content}" for message in request.messages)

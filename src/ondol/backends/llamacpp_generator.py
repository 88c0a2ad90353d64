"""llama.cpp behind the ``Generator`` protocol, in a supervised child process.

Speaks HTTP with the child over loopback with a random key. A cancel closes the connection, which
frees the slot within one prefill chunk (``batch_tokens``). Prompts are cached per slot and never
shared between salts. Knows no queue: at most ``slots`` calls run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.backends.base import GeneratorHealth, GeneratorSpec
from ondol.backends.http_endpoint import BadStatus, BrokenOff, Endpoint, Unreachable
from ondol.backends.llamacpp_process import Child, ChildSetup
from ondol.backends.llamacpp_slots import SlotTable
from ondol.backends.llamacpp_supervisor import Patience, Supervisor, Watch
from ondol.backends.openai_wire import ChatStream, chat_body, error_of
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import BackendError, GeneratorDied, InvalidInput, ModelError, NotReady
from ondol.core.machine import usable_cores
from ondol.core.types import GenerationEvent, GenerationRequest

_CALL_SECONDS = 60.0
_DEATH_SECONDS = 5.0
_RESTART_SECONDS = 5.0
_GGUF_MAGIC = b"GGUF"


class LlamaCppGenerator:
    """A GGUF model served by llama.cpp.

    Returns when the model is loaded, unless ``wait`` is false: then ``health()`` is ``starting``
    until it is. ``threads`` 0 takes the cores this process may use; ``device`` ``cpu`` keeps all
    layers on the processor. Raises ``ModelError`` when the file cannot be loaded.
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
        wait: bool = True,
        patience: Patience | None = None,
        clock: Clock | None = None,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        _check_file(model_path)
        self._clock = clock or SystemClock()
        self._spec = GeneratorSpec(
            model=model,
            form=form,
            context_tokens=context_tokens,
            slots=slots,
            device="cpu" if device == "cpu" else "auto",
        )
        self._table = SlotTable(slots)
        self._supervisor = Supervisor(
            ChildSetup(
                model_path=model_path,
                context_tokens=context_tokens,
                slots=slots,
                threads=threads or usable_cores(),
                batch_tokens=batch_tokens,
                cache_mib=cache_mib,
                gpu_layers=0 if device == "cpu" else -1,
            ),
            inspect=self._inspect,
            patience=patience or Patience(),
            on_state=on_state,
        )
        if wait:
            self._wait_started(model_path)

    @property
    def spec(self) -> GeneratorSpec:
        """What was asked for, until the model is loaded; then what it is."""
        return self._spec

    @property
    def child(self) -> Child | None:
        """The process behind this generator at this moment, for diagnosis."""
        return self._supervisor.child

    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        """Yield pieces, then one ``DoneEvent``; see ``Generator``. ``Overloaded`` beyond ``slots``."""
        body = chat_body(request)
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
            lease = table.lease(salt=request.cache_salt, prompt=_prompt(request))
            try:
                body |= {"id_slot": lease.index, "cache_prompt": lease.reuse}
                chat = ChatStream(clock=self._clock)
                for chunk in self._chunks(body, watch, chat, cancel):
                    table.confirm(lease)
                    yield from chat.feed(chunk)
                finished = True
                yield chat.done(cancelled=cancel.cancelled and not chat.finished)
            finally:
                table.release(lease)
        finally:
            self._supervisor.end(watch, finished=finished)

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
        self._supervisor.close()

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
            self._supervisor.close()
            raise
        if health.state == "failed":
            self._supervisor.close()
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


def _prompt(request: GenerationRequest) -> str:
    """Return the text by which two prompts are compared for a shared beginning."""
    return "\n".join(f"{message.role}\n{message.content}" for message in request.messages)

"""OpenVINO GenAI behind the ``Generator`` protocol, in a supervised child process.

Continuous batching with chunked prefill: requests run side by side, a cancel waits for one chunk
(``batch_tokens``). Prefixes are cached in blocks and never shared between salts: each salt's prompts
begin with a stand-in of their own for the first token (``models.genai_weights``); without stand-ins
nothing is cached. Knows no queue: at most ``slots`` calls run at once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.backends.json_grammar import grammar_of
from ondol.backends.openai_wire import chat_body
from ondol.backends.openvino_genai_process import ChildCall, ChildDeath, GenAIProcess
from ondol.backends.openvino_genai_schema import check_types, with_split_ranges
from ondol.backends.protocols import GeneratorHealth, GeneratorSpec
from ondol.core.cancel import CancelToken
from ondol.core.errors import (
    BackendError,
    GeneratorDied,
    InvalidInput,
    ModelError,
    NotReady,
    OndolError,
    Overloaded,
    TextTooLong,
)
from ondol.core.extras import install_command
from ondol.core.machine import usable_cores
from ondol.core.types import DoneEvent, GenerationEvent, GenerationRequest, TokenEvent, Usage

_RESTART_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class GenAIFiles:
    """What a form consists of: the folder of the graph, the tokenizer's file, and the stand-ins.

    ``aliases`` are token ids that read like ``opening``, the first token of every chat prompt.
    """

    model: Path
    tokenizer: Path
    opening: int = 0
    aliases: tuple[int, ...] = ()


class OpenVinoGenAIGenerator:
    """A model served by OpenVINO GenAI's continuous batching.

    Returns when the model is loaded. ``threads`` 0 takes the cores this process may use. Raises
    ``ModelError`` when it cannot be loaded.
    """

    def __init__(
        self,
        files: GenAIFiles,
        *,
        model: str,
        form: str = "openvino-genai:q4",
        context_tokens: int = 4096,
        slots: int = 2,
        threads: int = 0,
        batch_tokens: int = 256,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        self._spec = GeneratorSpec(
            model=model,
            form=form,
            context_tokens=context_tokens,
            slots=slots,
            prefills=1,
            keeps_prefixes=bool(files.aliases),
        )
        self._free = threading.BoundedSemaphore(slots)
        self._process = GenAIProcess(
            {
                "model": str(files.model),
                "tokenizer": str(files.tokenizer),
                "opening": files.opening,
                "aliases": list(files.aliases),
                "context_tokens": context_tokens,
                "slots": slots,
                "threads": threads or usable_cores(),
                "batch_tokens": batch_tokens,
            },
            on_state=on_state,
        )
        self._wait_started()

    @property
    def spec(self) -> GeneratorSpec:
        return self._spec

    @property
    def pid(self) -> int | None:
        """The process behind this generator at this moment, for diagnosis."""
        return self._process.pid

    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        """Yield pieces, then one ``DoneEvent``; see ``Generator``. ``Overloaded`` beyond ``slots``."""
        command = self._command(request)
        if not self._free.acquire(blocking=False):
            raise Overloaded(
                f"all {self._spec.slots} slots of the generator are busy",
                retry_after=1.0,
                hint="queue requests in front of the generator, or raise generation.slots",
            )
        try:
            if cancel.cancelled:
                yield DoneEvent(finish_reason="cancelled", usage=Usage())
                return
            yield from self._events(command, request, cancel)
        finally:
            self._free.release()

    def count_tokens(self, text: str) -> int:
        """Return the true number of tokens of ``text``, without template or special tokens."""
        return int(self._ask({"count": text})["count"])

    def prompt_ids(self, request: GenerationRequest) -> list[int]:
        """Return the token ids that the request's messages become, for diagnosis."""
        messages = chat_body(request)["messages"]
        return [int(token) for token in self._ask({"prompt": messages})["prompt"]]

    def busy(self) -> int:
        """Return how many requests the child holds now, for diagnosis."""
        return int(self._ask({"busy": True})["busy"])

    def health(self) -> GeneratorHealth:
        """Return the child's state; never blocks."""
        return self._process.health()

    def close(self) -> None:
        """End the child; running calls raise ``NotReady``."""
        self._process.close()

    def _events(
        self, command: dict[str, Any], request: GenerationRequest, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        call = self._open(command)
        finished = False
        try:
            cancel.on_cancel(lambda: self._process.cancel(call))
            while not finished:
                report = call.next()
                if "piece" in report:
                    yield TokenEvent(report["piece"])
                elif "refused" in report:
                    raise _refusal(report["refused"])
                else:
                    finished = True
                    yield _done(report["done"])
        except ChildDeath as death:
            raise self._died(death, call) from death
        finally:
            if not finished:  # abandoned: nobody reads on
                self._process.cancel(call)
            self._process.end(call, finished=finished)

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command that has one report, and return that."""
        call = self._open(command)
        try:
            return call.next()
        except ChildDeath as death:
            raise self._died(death, call) from death
        finally:
            self._process.end(call, finished=False)

    def _command(self, request: GenerationRequest) -> dict[str, Any]:
        body = chat_body(request)
        if request.tools:
            raise InvalidInput(
                f"{self._spec.form} has no tools",
                hint="choose a llamacpp form, or send no tools",
                param="tools",
            )
        schema = request.json_schema
        if schema is not None:
            check_types(schema, param="response_format")
            schema = with_split_ranges(schema, param="response_format")
        return {
            "messages": body["messages"],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": random.getrandbits(31) if request.seed is None else request.seed % 2**32,
            "stop": list(request.stop),
            "schema": schema,
            "grammar": None if schema is None else grammar_of(schema),
            "salt": request.cache_salt,
        }

    def _open(self, command: dict[str, Any]) -> ChildCall:
        call = self._process.open(command)
        if call is not None:
            return call
        health = self._process.health()
        reason = f": {health.reason}" if health.reason else ""
        raise NotReady(
            f"the generator is {health.state}{reason}",
            retry_after=_RESTART_SECONDS,
            hint="see /health/ready; send again after Retry-After",
        )

    def _died(self, death: ChildDeath, call: ChildCall) -> OndolError:
        """Return what the child's end means to a call that was open."""
        if death.wanted:
            return NotReady(
                "the generator has been closed",
                retry_after=_RESTART_SECONDS,
                hint="send again when the server is back",
            )
        if call.number in death.blamed:
            return InvalidInput(
                f"the generator rejects the JSON schema: {death}",
                hint="simplify the schema, or mend the part named",
                param="response_format",
            )
        return GeneratorDied(
            f"the generator process died in mid-request: {death}",
            hint="it restarts by itself: send the request again in a few seconds",
        )

    def _wait_started(self) -> None:
        try:
            health = self._process.wait_started()
        except BaseException:
            self._process.close()
            raise
        if health.state == "failed":
            self._process.close()
            raise ModelError(
                f"{self._spec.model} ({self._spec.form}) could not be loaded: {health.reason}",
                hint=f"{install_command('openvino-genai')}; if memory ran out, choose a smaller "
                "model, fewer generation.slots or less generation.context_tokens",
            )


def _refusal(refused: dict[str, Any]) -> OndolError:
    if refused["kind"] == "too_long":
        return TextTooLong(
            f"the prompt has {refused['tokens']} tokens, the context of one request is "
            f"{refused['context']}",
            hint="shorten the prompt, or raise generation.context_tokens",
            param="messages",
        )
    return BackendError(
        f"OpenVINO GenAI refuses the request: {refused['message']}",
        hint="see the generator's log",
    )


def _done(done: dict[str, Any]) -> DoneEvent:
    return DoneEvent(
        finish_reason=done["finish"],
        usage=Usage(done["prompt"], done["cached"], done["out"]),
        prefill_ms=done.get("prefill_ms", 0.0),
        decode_ms=done.get("decode_ms", 0.0),
    )

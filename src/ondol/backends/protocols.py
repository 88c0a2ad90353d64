"""The two protocols every model library is put behind.

An *encoder* (embedder or reranker) tokenises and runs batches; exactly one thread calls ``run``.
A *generator* yields events until it is done or its token is cancelled; several threads may each
run one ``generate``, up to ``spec.slots``. Both are synchronous and know no queue or metric.

How an encoder's failed or senseless run is told, the same for every model library.

Running out of memory is an error of its own, because a smaller batch may well succeed; libraries
name it only in their messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ondol.core.cancel import CancelToken
from ondol.core.errors import BackendError, ModelError, OndolError, OutOfMemory
from ondol.core.types import (
    Encoded,
    FloatMatrix,
    GenerationEvent,
    GenerationRequest,
    Message,
    ModelRole,
    Pair,
)
from ondol.kernels.kernel_error import KernelError


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What a loaded encoder is. ``dimensions`` is 1 for a reranker; ``vocabulary`` 0 is unknown.

    ``fingerprint`` names weights, tokenizer and recipe (empty where unknown): with ``form`` it tells
    whether two vectors are comparable. ``padded`` says that a batch costs items x longest tokens;
    an encoder that packs its batch costs the sum. ``batch_invariant`` says that a text's vector
    does not depend on its batch mates (cosine at least 0.9995). ``buckets`` are the lengths, rising,
    that a padded encoder rounds its batches up to; empty where any length will do.
    """

    model: str
    form: str
    role: ModelRole
    dimensions: int
    max_tokens: int
    device: str = "cpu"
    vocabulary: int = 0
    fingerprint: str = ""
    padded: bool = True
    batch_invariant: bool = True
    buckets: tuple[int, ...] = ()


class EncoderBackend(Protocol):
    """An embedder or a reranker.

    ``tokenize`` takes texts (embedder, prefixes already applied) or ``Pair`` items (reranker) and
    returns, item by item and in order, an ``Encoded`` or the error that item alone met
    (``TextTooLong`` unless ``truncate``). ``run`` returns float32 ``(n, dimensions)``: pooled but
    not normalised embeddings, or raw relevance logits. It raises ``BackendError`` on failure.
    """

    @property
    def spec(self) -> EncoderSpec: ...
    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]: ...
    def run(self, batch: Sequence[Encoded]) -> FloatMatrix: ...
    def close(self) -> None: ...


@runtime_checkable
class MemoryAware(Protocol):
    """An encoder that may run in memory of its own, a GPU's, and can say how much of it is free.

    ``free_bytes`` is called by the thread that runs it, some times a second; ``None`` where it
    runs in the machine's memory, or cannot tell.
    """

    def free_bytes(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class GeneratorSpec:
    """What a loaded generator is. ``context_tokens`` is what one request may use, prompt and answer.

    ``prefills`` is how many prompts are worth reading at once: 1 where two would only halve each
    other's speed, 0 as many as there are slots. ``adapters`` are the LoRA adapters that a request
    may name. ``keeps_prefixes`` says that what was read of one prompt is not read again for a longer
    one that begins alike.
    """

    model: str
    form: str
    context_tokens: int
    slots: int
    device: str = "cpu"
    tools: bool = False
    adapters: tuple[str, ...] = ()
    prefills: int = 0
    keeps_prefixes: bool = False


@dataclass(frozen=True, slots=True)
class GeneratorHealth:
    """Whether requests can be served now; ``reason`` says why not."""

    state: Literal["starting", "ready", "restarting", "failed", "closed"]
    reason: str = ""
    restarts: int = 0

    @property
    def ready(self) -> bool:
        return self.state == "ready"


class Generator(Protocol):
    """A chat model.

    ``generate`` yields ``TokenEvent`` (and ``ToolCallEvent``) and ends with exactly one
    ``DoneEvent``; after ``cancel`` it ends promptly, also in the middle of prefill, with
    ``finish_reason="cancelled"``. Raises ``TextTooLong`` when the prompt does not fit,
    ``InvalidInput`` for a schema or parameter the backend rejects, ``GeneratorDied`` when the
    process behind it ends, ``NotReady`` when it cannot serve now.
    ``count_tokens`` returns the true prompt length of a text without chat template.
    """

    @property
    def spec(self) -> GeneratorSpec: ...
    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]: ...
    def count_tokens(self, text: str) -> int: ...
    def health(self) -> GeneratorHealth: ...
    def close(self) -> None: ...


@runtime_checkable
class PrefixAware(Protocol):
    """A generator that keeps prompts it has read and can say how much of the next it has already.

    ``cached_chars`` is how many of the first characters of the request's prompt need not be read
    again; cheap (microseconds), from any thread.
    """

    def cached_chars(self, request: GenerationRequest) -> int: ...


@runtime_checkable
class Preloading(Protocol):
    """A generator that can read standing prefixes before anybody asks.

    ``preload`` takes the beginnings of conversations that hold nothing of any caller (a system
    prompt, standing instructions), reads them into slots in the background, after each restart
    again, and any caller may reuse them. It replaces those given before.
    """

    def preload(self, prefixes: Sequence[Sequence[Message]]) -> None: ...


_MEMORY = re.compile(r"allocate memory|bad_?alloc|bad allocation|out of memory", re.I)


@contextmanager
def as_model_error() -> Iterator[None]:
    """Let an error of the kernels leave as ``ModelError``, with its message and its hint."""
    try:
        yield
    except KernelError as error:
        raise ModelError(str(error), hint=error.hint) from error


def load_failure(error: Exception, *, spec: EncoderSpec) -> ModelError:
    """Return the error for an encoder that could not be loaded."""
    return ModelError(
        f"{spec.model} ({spec.form}) could not be loaded: {error or type(error).__name__}",
        hint=f"fetch it anew: ondol models pull {spec.model} --force",
    )


def run_failure(error: BaseException, *, spec: EncoderSpec, items: int) -> BackendError:
    """Return what a failed run of ``items`` stands for: ``OutOfMemory`` or ``BackendError``."""
    memory = isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None
    kind = OutOfMemory if memory else BackendError
    return kind(
        f"{spec.model} ({spec.form}) failed on a batch of {items}: {error or type(error).__name__}",
        hint="lower models.token_budget if memory is short",
    )


def finite_rows(output: Any, *, spec: EncoderSpec, items: int) -> FloatMatrix:
    """Return ``output`` as float32 ``(items, …)``; raises ``BackendError`` for NaN or infinity."""
    rows = np.asarray(output, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise BackendError(
            f"{spec.model} ({spec.form}) returned values that are not finite",
            hint="use the reference form: models.form = 'onnx:fp32'",
        )
    return rows.reshape(items, -1)

"""Hugging Face transformers behind the ``Generator`` protocol, for a GPU (or, slowly, a CPU).

One request at a time (``spec.slots`` is 1): prefill in chunks of ``batch_tokens``, then token by
token, looking at the cancel token between. The keys and values of the last request are kept, and the
beginning that the next one shares with it is not computed again, if both bear the same salt.
Loads a local folder of safetensors; never runs code from it and never downloads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from ondol.backends.openai_wire import chat_body
from ondol.backends.protocols import GeneratorHealth, GeneratorSpec
from ondol.backends.streamed_text import StreamedText
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import (
    BackendError,
    InvalidInput,
    ModelError,
    NotReady,
    OndolError,
    OutOfMemory,
    Overloaded,
    TextTooLong,
)
from ondol.core.types import (
    DoneEvent,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TokenEvent,
    Usage,
)

Precision = Literal["fp32", "fp16", "bf16", "int8", "nf4"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_RETRY_SECONDS = 5.0


class TransformersGenerator:
    """A causal language model in torch.

    ``folder`` holds ``config.json``, safetensors and a tokenizer with a chat template. ``int8`` and
    ``nf4`` are bitsandbytes' (GPU only). Attention is FlashAttention-2 where it is installed and
    the weights are half precision on a GPU, else torch's own. Raises ``ModelError``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        form: str = "transformers:bf16",
        precision: Precision = "bf16",
        device: str = "cpu",
        context_tokens: int = 4096,
        threads: int = 0,
        batch_tokens: int = 512,
        clock: Clock | None = None,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        _check(folder, precision=precision, device=device)
        if threads and device == "cpu":
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._clock = clock or SystemClock()
        self._on_state = on_state
        self._batch_tokens = batch_tokens
        try:
            self._tokenizer: Any = _open_tokenizer(folder)
            self._model: Any = _open_model(folder, precision=precision, device=device)
        except Exception as error:
            raise ModelError(
                f"{model} ({form}) could not be loaded: {error or type(error).__name__}",
                hint="check the folder; on a GPU that is too small choose transformers:nf4@cuda",
            ) from error
        most = getattr(self._model.config, "max_position_embeddings", context_tokens)
        self._spec = GeneratorSpec(
            model=model,
            form=form,
            context_tokens=min(context_tokens, most),
            slots=1,
            device=device,
        )
        self._ends = _end_tokens(self._model, self._tokenizer)
        self._kept = _Kept()
        self._free = threading.Lock()
        self._become(GeneratorHealth("ready"))

    @property
    def spec(self) -> GeneratorSpec:
        return self._spec

    def generate(
        self, request: GenerationRequest, *, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        """Yield pieces, then one ``DoneEvent``; see ``Generator``. ``Overloaded`` while one runs."""
        self._refuse(request)
        if not self._free.acquire(blocking=False):
            raise Overloaded(
                "the generator runs one request at a time, and one is running",
                retry_after=1.0,
                hint="queue requests in front of the generator",
            )
        try:
            self._check_open()
            yield from self._generate(request, cancel)
        except (OndolError, GeneratorExit):
            raise
        except Exception as error:
            raise self._failure(error) from error
        finally:
            self._free.release()

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of ``text``, without template or special tokens."""
        self._check_open()
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def health(self) -> GeneratorHealth:
        return self._health

    def close(self) -> None:
        """Refuse new calls, let a running one end with ``NotReady``, and free the memory."""
        self._become(GeneratorHealth("closed"))
        with self._free:
            self._kept = _Kept()
            self._model = None
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _generate(
        self, request: GenerationRequest, cancel: CancelToken
    ) -> Iterator[GenerationEvent]:
        began = self._clock.monotonic()
        prompt = self._prompt(request)
        run = _Run(prompt, self._kept.take(request.cache_salt, prompt))
        text = StreamedText(self._decode, request.stop)
        pick = _Picker(request)
        room = min(request.max_tokens, self._spec.context_tokens - len(prompt))
        finish: FinishReason = "length"
        first = 0.0
        logits = None if cancel.cancelled else self._prefill(run, cancel)
        while logits is not None and len(run.out) < room:
            token = pick(logits)
            first = first or self._clock.monotonic()
            run.out.append(token)
            if token in self._ends:
                finish = "stop"
                break
            if piece := text.feed([token]):
                yield TokenEvent(piece)
            if text.stopped:
                finish = "stop"
                break
            logits = self._next(run, token, cancel) if len(run.out) < room else None
        if cancel.cancelled:
            finish = "cancelled"
        elif piece := text.rest():
            yield TokenEvent(piece)
        self._kept = _Kept(request.cache_salt, [*prompt, *run.out][: run.length], run.cache)
        now = self._clock.monotonic()
        yield DoneEvent(
            finish_reason=finish,
            usage=Usage(len(prompt), run.cached, len(run.out)),
            prefill_ms=((first or now) - began) * 1e3,
            decode_ms=(now - (first or now)) * 1e3,
        )

    def _prompt(self, request: GenerationRequest) -> list[int]:
        messages = chat_body(request)["messages"]
        text = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= self._spec.context_tokens:
            raise TextTooLong(
                f"the prompt has {len(ids)} tokens, the context of one request is "
                f"{self._spec.context_tokens}",
                hint="shorten the prompt, or raise generation.context_tokens",
                param="messages",
            )
        return ids

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _prefill(self, run: _Run, cancel: CancelToken) -> torch.Tensor | None:
        """Compute what is missing of the prompt; ``None`` when cancelled between two chunks."""
        logits = None
        while run.length < len(run.prompt):
            if cancel.cancelled:
                return None
            self._check_open()
            chunk = run.prompt[run.length : run.length + self._batch_tokens]
            logits = self._forward(run, chunk)
        return logits

    def _next(self, run: _Run, token: int, cancel: CancelToken) -> torch.Tensor | None:
        if cancel.cancelled:
            return None
        self._check_open()
        return self._forward(run, [token])

    def _forward(self, run: _Run, ids: list[int]) -> torch.Tensor:
        """Run ``ids`` after what the cache holds; returns the last token's logits on the CPU."""
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([ids], device=self._device),
                past_key_values=run.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        run.cache = output.past_key_values
        run.length += len(ids)
        logits: torch.Tensor = output.logits[0, -1].float().cpu()
        return logits

    def _refuse(self, request: GenerationRequest) -> None:
        """Refuse what this backend has not."""
        chat_body(request)
        lacking = [
            (request.json_schema is not None, "JSON schemas", "response_format"),
            (bool(request.tools), "tools", "tools"),
            (bool(request.adapter), "adapters", "adapter"),
        ]
        for asked, what, param in lacking:
            if asked:
                raise InvalidInput(
                    f"{self._spec.form} has no {what}",
                    hint="choose a llamacpp form or an upstream, or ask without",
                    param=param,
                )

    def _check_open(self) -> None:
        if not self._health.ready:
            raise NotReady(
                "the generator has been closed",
                retry_after=_RETRY_SECONDS,
                hint="send again when the server is back",
            )

    def _failure(self, error: Exception) -> BackendError:
        """Return what a failed pass stands for, and forget what it may have spoilt."""
        self._kept = _Kept()
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        kind = OutOfMemory if memory else BackendError
        return kind(
            f"{self._spec.model} ({self._spec.form}) failed: {error or type(error).__name__}",
            hint="lower generation.context_tokens or choose a smaller form"
            if memory
            else "see the log; send the request again",
        )

    def _become(self, health: GeneratorHealth) -> None:
        self._health = health
        if self._on_state is not None:
            self._on_state(health)


class _Kept:
    """The cache that the last request left: the tokens it holds, and whose they are."""

    def __init__(self, salt: str = "", ids: list[int] | None = None, cache: Any = None) -> None:
        self._salt, self._ids, self._cache = salt, ids or [], cache

    def take(self, salt: str, prompt: list[int]) -> tuple[Any, int]:
        """Return the cache cut to what ``prompt`` shares with it, and that length."""
        pairs = zip(self._ids, prompt[:-1], strict=False)
        shared = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if shared is None:
            shared = min(len(self._ids), len(prompt) - 1)
        cache, self._cache = self._cache, None  # cut in place: of no use to anybody else now
        usable = type(cache) is transformers.DynamicCache and not any(
            getattr(layer, "is_sliding", False) for layer in getattr(cache, "layers", ())
        )
        if salt != self._salt or not usable or shared == 0:
            return None, 0
        if len(self._ids) > shared:
            cache.crop(shared - len(self._ids))  # negative, in every version: so many tokens less
        return cache, shared


class _Run:
    """One request's tokens and cache; ``length`` is how many tokens the cache holds."""

    def __init__(self, prompt: list[int], kept: tuple[Any, int]) -> None:
        self.prompt = prompt
        self.cache, self.cached = kept
        self.length = self.cached
        self.out: list[int] = []


class _Picker:
    """Chooses the next token: the likeliest, or one of the likeliest by temperature and top_p."""

    def __init__(self, request: GenerationRequest) -> None:
        self._temperature, self._top_p = request.temperature, request.top_p
        self._random = torch.Generator()
        if request.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(request.seed % 2**63)

    def __call__(self, logits: torch.Tensor) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        shares, order = torch.softmax(logits / self._temperature, -1).sort(descending=True)
        kept = shares.cumsum(-1) - shares < self._top_p
        place = torch.multinomial(shares * kept, 1, generator=self._random)
        return int(order[place])


def _check(folder: Path, *, precision: str, device: str) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no config.json",
            hint="give a folder as the Hub lays it out, with safetensors and a tokenizer",
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError("torch sees no CUDA device", hint="use a form without @cuda")
    if precision in ("int8", "nf4") and not device.startswith("cuda"):
        raise ModelError(
            f"transformers:{precision} runs on a GPU only",
            hint=f"use transformers:{precision}@cuda, or a llamacpp form on the processor",
        )


def _open_tokenizer(folder: Path) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if not tokenizer.chat_template:
        raise ValueError("its tokenizer has no chat template")
    return tokenizer


def _open_model(folder: Path, *, precision: Precision, device: str) -> Any:
    quantised: Any = None
    if precision == "int8":
        quantised = transformers.BitsAndBytesConfig(load_in_8bit=True)
    elif precision == "nf4":
        quantised = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    flash = device.startswith("cuda") and precision != "fp32" and find_spec("flash_attn")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=_DTYPES.get(precision, torch.bfloat16),
        attn_implementation="flash_attention_2" if flash else "sdpa",
        quantization_config=quantised,
        **({"device_map": {"": device}} if quantised is not None else {}),
    )
    return (model if quantised is not None else model.to(device)).eval()


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer: the model's own and the tokenizer's."""
    named = model.generation_config.eos_token_id
    found = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*found, tokenizer.eos_token_id] if token is not None)

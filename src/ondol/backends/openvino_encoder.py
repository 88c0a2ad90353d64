"""OpenVINO encoder on the CPU: an embedder or a reranker from one ``.xml`` and ``tokenizer.json``.

Owns a compiled model, which prepares kernels for every new shape of its input; so lengths are
padded to a few buckets, and those of a lone text are prepared when loading. Weights are mapped, not
read. Knows no queue; exactly one thread calls ``run``. Source: OpenVINO Python API.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ondol.backends.protocols import (
    EncoderSpec,
    as_model_error,
    finite_rows,
    load_failure,
    run_failure,
)
from ondol.backends.tokenizer import TextTokenizer
from ondol.core.errors import OndolError
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.kernels.openvino_library import openvino

BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Lengths that batches are padded to; the mask keeps results the same. Longer ones stay as they are."""

_WARM_SECONDS = 1.0
"""Most time spent on preparing shapes while loading; the rest are prepared when first met."""


class OpenVinoEncoder:
    """Runs an OpenVINO encoder. ``half`` lets whatever is not 8-bit run in bfloat16."""

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        *,
        spec: EncoderSpec,
        threads: int,
        half: bool,
    ) -> None:
        with as_model_error():
            ov = openvino()
        try:
            self._tokenizer = TextTokenizer(
                tokenizer_path, model=spec.model, max_tokens=spec.max_tokens
            )
            core = ov.Core()
            compiled = core.compile_model(
                core.read_model(str(model_path)), "CPU", _options(threads=threads, half=half)
            )
            self._request = compiled.create_infer_request()
            self._inputs = len(compiled.inputs)
        except Exception as error:
            raise load_failure(error, spec=spec) from error
        self._spec = replace(spec, vocabulary=self._tokenizer.vocabulary)
        self._warm()

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        """Tokenise each item alone; see ``backends.base.Encoder``."""
        return self._tokenizer.tokenize(items, truncate=truncate)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        """Return float32 ``(n, dimensions)`` for ``batch``; raises ``BackendError``."""
        longest = max(item.tokens for item in batch)
        length = bucket(longest, most=self._spec.max_tokens)
        padded = self._tokenizer.pad(batch, dtype=np.int32, length=length)
        feeds: dict[int, Any] = dict(
            enumerate((padded.ids, padded.mask, padded.types)[: self._inputs])
        )
        try:
            self._request.infer(feeds)
            output = self._request.get_output_tensor(0).data.copy()
        except Exception as error:
            raise run_failure(error, spec=self._spec, items=len(batch)) from error
        return finite_rows(output, spec=self._spec, items=len(batch))

    def close(self) -> None:
        """Release the model's memory."""
        self.__dict__.pop("_request", None)

    def _warm(self) -> None:
        """Prepare the shapes of lone texts, shortest first, while time is left."""
        until = time.monotonic() + _WARM_SECONDS
        for length in BUCKETS:
            if length > self._spec.max_tokens or time.monotonic() > until:
                return
            self.run([Encoded(ids=[0] * length, type_ids=[0] * length)])


def bucket(tokens: int, *, most: int) -> int:
    """Return the length that an input of ``tokens`` is padded to, never above ``most``."""
    place = bisect_left(BUCKETS, tokens)
    return max(tokens, min(most, BUCKETS[place])) if place < len(BUCKETS) else tokens


def _options(*, threads: int, half: bool) -> dict[str, Any]:
    return {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "ENABLE_CPU_PINNING": False,
    }

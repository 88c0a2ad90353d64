"""An encoder on our own 8-bit kernels: for CPUs with AVX512-VNNI and AVX512-BF16.

Owns a mapped weights file, the kernels' workspace and threads, and a tokenizer. Batches are packed
without padding and each token is quantised by itself, so that a text's vector does not depend on
its batch mates, to the last bit. Exactly one thread calls ``run``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.backends.base import EncoderSpec
from ondol.backends.tokenizer import TextTokenizer
from ondol.core.errors import BackendError, ModelError, OndolError, OutOfMemory
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.kernels.native_library import (
    FP16_ROWS,
    PACKED_ROWS,
    Layer,
    Linear,
    Model,
    kernels,
)

Array = NDArray[Any]


class NativeEncoder:
    """Runs packed weights; ``arrays`` and ``sizes`` are as ``kernels.packed_weights`` reads them."""

    def __init__(
        self,
        arrays: Mapping[str, Array],
        tokenizer_path: Path,
        *,
        spec: EncoderSpec,
        threads: int,
        layers: int,
        heads: int,
        eps: float,
        pooling: Literal["mean", "cls"],
    ) -> None:
        self._arrays = arrays  # the kernels point into them
        self._kept: list[Any] = []
        try:
            self._tokenizer = TextTokenizer(
                tokenizer_path, model=spec.model, max_tokens=spec.max_tokens
            )
            model = self._model(layers=layers, heads=heads, eps=eps, first_only=pooling == "cls")
            self._handle = kernels().ondol_encoder_open(ctypes.byref(model), threads)
        except Exception as error:
            raise ModelError(
                f"{spec.model} ({spec.form}) could not be loaded: {error}",
                hint=f"fetch it anew: ondol models pull {spec.model} --force",
            ) from error
        if not self._handle:
            raise OutOfMemory(
                f"{spec.model} ({spec.form}) could not be loaded: no memory for its workers",
                hint="free memory, or set fewer models.threads",
            )
        self._hidden = int(model.hidden)
        self._head = _head_of(arrays)
        self._spec = replace(spec, vocabulary=self._tokenizer.vocabulary, padded=False)

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
        if self._handle is None:
            raise BackendError(f"{self._spec.model} is closed", hint="load it again")
        offsets = np.zeros(len(batch) + 1, np.int32)
        np.cumsum([item.tokens for item in batch], out=offsets[1:])
        ids = np.fromiter((i for item in batch for i in item.ids), np.int32, offsets[-1])
        types = np.fromiter((i for item in batch for i in item.type_ids), np.int32, offsets[-1])
        self._check(offsets, ids, types)
        out: FloatMatrix = np.empty((len(batch), self._hidden), np.float32)
        pointers = (array.ctypes.data for array in (offsets, ids, types, out))
        if kernels().ondol_encoder_run(self._handle, len(batch), *pointers):
            raise OutOfMemory(
                f"{self._spec.model} found no memory for a batch of {offsets[-1]} tokens",
                hint="lower models.token_budget",
            )
        if not np.isfinite(out).all():
            raise BackendError(
                f"{self._spec.model} returned values that are not finite",
                hint="use the reference form: models.form = 'onnx:fp32'",
            )
        return out if self._head is None else self._head.logits(out)

    def close(self) -> None:
        """End the worker threads and let go of the weights."""
        handle, self._handle = self._handle, None
        if handle:
            kernels().ondol_encoder_close(handle)
        self._arrays = {}
        self._kept.clear()

    def _check(
        self, offsets: NDArray[np.int32], ids: NDArray[np.int32], types: NDArray[np.int32]
    ) -> None:
        """The kernels trust what they get; this does not."""
        arrays, lengths = self._arrays, np.diff(offsets)
        words = len(arrays["words" if "words" in arrays else "words.packed"])
        if lengths.min() < 1 or lengths.max() > len(arrays["positions"]):
            raise BackendError(
                f"a text has {lengths.max()} tokens; {self._spec.model} takes 1 to "
                f"{len(arrays['positions'])}",
                hint="shorten the text",
            )
        if ids.min() < 0 or ids.max() >= words:
            raise BackendError(
                f"token ids must lie in 0…{words - 1}", hint="send ids of this model"
            )
        np.clip(types, 0, len(arrays["types"]) - 1, out=types)

    def _model(self, *, layers: int, heads: int, eps: float, first_only: bool) -> Model:
        arrays = self._arrays
        packed = "words.packed" in arrays
        made = (Layer * layers)(*(self._layer(f"l{index}.") for index in range(layers)))
        self._kept.append(made)
        return Model(
            hidden=arrays["norm.w"].shape[0],
            layers=layers,
            heads=heads,
            ffn=arrays["l0.fi.0.bias"].shape[0],
            word_kind=PACKED_ROWS if packed else FP16_ROWS,
            first_token_only=int(first_only),
            eps=eps,
            words=self._at("words.packed" if packed else "words"),
            word_scales=self._at("words.scales") if packed else None,
            positions=self._at("positions"),
            types=self._at("types"),
            norm_w=self._at("norm.w"),
            norm_b=self._at("norm.b"),
            layer=made,
        )

    def _layer(self, p: str) -> Layer:
        groups = sum(name.startswith(f"{p}fo.") and name.endswith(".bias") for name in self._arrays)
        narrow = (Linear * groups)(*(self._linear(f"{p}fo.{group}") for group in range(groups)))
        self._kept.append(narrow)
        return Layer(
            qkv=self._linear(f"{p}qkv.0"),
            attended=self._linear(f"{p}ao.0"),
            wide=self._linear(f"{p}fi.0"),
            narrow=narrow,
            qkv_in=self._at(f"{p}qkv.factors"),
            attended_in=self._at(f"{p}ao.factors"),
            wide_in=self._at(f"{p}fi.factors"),
            narrow_in=self._at(f"{p}fo.factors"),
            attended_norm_w=self._at(f"{p}aln.w"),
            attended_norm_b=self._at(f"{p}aln.b"),
            output_norm_w=self._at(f"{p}oln.w"),
            output_norm_b=self._at(f"{p}oln.b"),
        )

    def _linear(self, name: str) -> Linear:
        return Linear(*(self._at(f"{name}.{part}") for part in ("weights", "scale", "sum", "bias")))

    def _at(self, name: str) -> int:
        return int(self._arrays[name].ctypes.data)


@dataclass(frozen=True, slots=True)
class _RelevanceHead:
    """A reranker's head on the first token: dense, tanh, one logit."""

    dense: Array
    dense_bias: Array
    out: Array
    out_bias: Array

    def logits(self, first: FloatMatrix) -> FloatMatrix:
        found: FloatMatrix = np.tanh(first @ self.dense + self.dense_bias) @ self.out
        return found + self.out_bias


def _head_of(arrays: Mapping[str, Array]) -> _RelevanceHead | None:
    if "head.o.w" not in arrays:
        return None
    return _RelevanceHead(
        dense=np.array(arrays["head.d.w"]).T,
        dense_bias=np.array(arrays["head.d.b"]),
        out=np.array(arrays["head.o.w"]).T,
        out_bias=np.array(arrays["head.o.b"]),
    )

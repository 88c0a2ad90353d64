"""Reads a BERT or XLM-R encoder from ``model.safetensors`` and its ``config.json``.

The format (https://github.com/huggingface/safetensors): u64 header length, a JSON directory, raw
tensors. Tensors are read one at a time; float32, float16 and bfloat16 are understood. Nothing in
the file is ever executed. Anything malformed is a ``KernelError``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ondol.kernels.bert import BertShape, BertWeights, FloatArray, expected_shape
from ondol.kernels.kernel_error import KernelError

_MOST_HEADER_BYTES = 100_000_000
"""The format's own limit, so that a lying length is not read into memory."""
_ENCODER_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_HEAD_NAMES = {"head.d": "classifier.dense", "head.o": "classifier.out_proj"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_SUFFIX = {"w": "weight", "b": "bias"}


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_safetensors(path: Path, *, config: Path) -> BertWeights:
    """Open an encoder; its sizes come from ``config`` (``config.json``) and are checked per tensor.

    XLM-R tables count positions from ``pad + 1``; the rows before it are dropped, so that positions
    count from 0 as in BERT. Raises ``KernelError`` for another architecture or a damaged file.
    """
    tensors = _read_directory(path)
    settings = _read_config(config)
    kind = _kind(settings, config)
    prefix = next(
        (p for p in ("", "bert.", "roberta.") if p + _ENCODER_NAMES["emb.word"] in tensors), None
    )
    if prefix is None:
        raise _damaged(path, "no word embeddings were found in it")
    skipped = int(settings.get("pad_token_id", 1)) + 1 if kind == "roberta" else 0
    try:
        shape = BertShape(
            hidden=int(settings["hidden_size"]),
            layers=int(settings["num_hidden_layers"]),
            heads=int(settings["num_attention_heads"]),
            ffn=int(settings["intermediate_size"]),
            vocab=int(settings["vocab_size"]),
            positions=int(settings["max_position_embeddings"]) - skipped,
            types=int(settings["type_vocab_size"]),
            eps=float(settings["layer_norm_eps"]),
            classifier="classifier.out_proj.weight" in tensors,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(config, f"a size is missing or not a number: {error}") from None
    reader = _Reader(path=path, shape=shape, tensors=tensors, prefix=prefix, skipped=skipped)
    return BertWeights(shape=shape, matrix=reader.tensor, vector=reader.tensor)


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    shape: BertShape
    tensors: dict[str, _Tensor]
    prefix: str
    skipped: int

    def tensor(self, name: str) -> FloatArray:
        native = native_name(name, self.prefix)
        tensor = self.tensors.get(native)
        if tensor is None:
            raise _damaged(self.path, f"tensor {native} is missing")
        values = self._read(native, tensor)
        if name == "emb.pos":
            values = values[self.skipped :]
        if values.shape != expected_shape(name, self.shape):
            raise _damaged(
                self.path,
                f"tensor {native} has shape {list(values.shape)}, "
                f"config.json says {list(expected_shape(name, self.shape))}",
            )
        return values

    def _read(self, name: str, tensor: _Tensor) -> FloatArray:
        stored = _DTYPES.get(tensor.dtype)
        if stored is None:
            raise _damaged(self.path, f"tensor {name} is {tensor.dtype}; F32, F16 or BF16 is read")
        count = math.prod(tensor.shape)
        if tensor.end - tensor.start != count * stored.itemsize:
            raise _damaged(self.path, f"tensor {name} has too many or too few bytes")
        raw = np.fromfile(self.path, stored, count=count, offset=tensor.start)
        if tensor.dtype == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        values: FloatArray = raw.astype(np.float32, copy=False).reshape(tensor.shape)
        return values


def native_name(name: str, prefix: str = "") -> str:
    """Return what the Hub calls the tensor ``name`` (canonical)."""
    if name in _ENCODER_NAMES:
        return prefix + _ENCODER_NAMES[name]
    stem, _, suffix = name.rpartition(".")
    if stem in _HEAD_NAMES:
        return f"{_HEAD_NAMES[stem]}.{_SUFFIX[suffix]}"
    if stem in _ENCODER_NAMES:
        return f"{prefix}{_ENCODER_NAMES[stem]}.{_SUFFIX[suffix]}"
    layer, _, part = stem.partition(".")
    return f"{prefix}encoder.layer.{layer[1:]}.{_ENCODER_NAMES[part]}.{_SUFFIX[suffix]}"


def _kind(settings: dict[str, Any], config: Path) -> Literal["bert", "roberta"]:
    model_type = settings.get("model_type")
    if settings.get("hidden_act", "gelu") != "gelu":
        raise KernelError(
            f"{config.name} names the activation {settings['hidden_act']!r}; only exact 'gelu' is built",
            hint="use a model of the catalogue, or one that ships an ONNX file",
        )
    if model_type == "bert":
        return "bert"
    if model_type in {"roberta", "xlm-roberta"}:
        return "roberta"
    raise KernelError(
        f"{config.name} names the architecture {model_type!r}; "
        "'bert', 'roberta' and 'xlm-roberta' can be converted",
        hint="use a model of the catalogue, or one that ships an ONNX file",
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(settings, dict):
        raise _damaged(path, "it is not a JSON object")
    return settings


def _read_directory(path: Path) -> dict[str, _Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MOST_HEADER_BYTES):
            raise _damaged(path, f"its directory claims {length} bytes of a file of {size}")
        raw = file.read(length)
    try:
        directory = json.loads(raw)
        tensors = {
            name: _Tensor(
                dtype=str(entry["dtype"]),
                shape=tuple(int(n) for n in entry["shape"]),
                start=8 + length + int(entry["data_offsets"][0]),
                end=8 + length + int(entry["data_offsets"][1]),
            )
            for name, entry in directory.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _damaged(path, f"its directory cannot be read: {error}") from None
    for name, tensor in tensors.items():
        if not 8 + length <= tensor.start <= tensor.end <= size:
            raise _damaged(path, f"tensor {name} points outside the file")
    return tensors


def _damaged(path: Path, reason: str) -> KernelError:
    return KernelError(
        f"{path.name} is damaged: {reason}", hint="delete the file and pull the model again"
    )

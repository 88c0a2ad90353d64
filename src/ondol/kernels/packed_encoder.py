"""Runs packed weights on the compiled kernels: token ids in, one row a text out.

Owns the library's structures and calls (they mirror ``native/encoder.h``), the workspace and the
worker threads. Batches are packed without padding and each token is quantised by itself, so that a
text's row does not depend on its batch mates, to the last bit. Calls release the interpreter lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import FloatArray
from ondol.kernels.calibration.calibration_statistics import Tokens
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.packed_weights import PackedWeights

_FP16_ROWS, _PACKED_ROWS = 0, 1
"""How the word table is kept: fp16, or 4-bit blocks of 32 with fp16 scales."""

_FILE = Path(__file__).with_name("native") / "encoder.so"

IntVector = NDArray[np.int32]


class _Linear(ctypes.Structure):
    """Packed int8 weights of one multiplication; see ``linear`` in the C file."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("weights", "scale", "sum", "bias"))


class _Layer(ctypes.Structure):
    """One layer; ``narrow`` points to one ``_Linear`` a group of inputs."""

    _fields_ = (
        ("qkv", _Linear),
        ("attended", _Linear),
        ("wide", _Linear),
        ("narrow", ctypes.POINTER(_Linear)),
        ("qkv_in", ctypes.c_void_p),
        ("attended_in", ctypes.c_void_p),
        ("wide_in", ctypes.c_void_p),
        ("narrow_in", ctypes.c_void_p),
        ("attended_norm_w", ctypes.c_void_p),
        ("attended_norm_b", ctypes.c_void_p),
        ("output_norm_w", ctypes.c_void_p),
        ("output_norm_b", ctypes.c_void_p),
    )


class _Model(ctypes.Structure):
    """Sizes and pointers of an encoder; whoever opens it keeps the memory alive."""

    _fields_ = (
        ("hidden", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("ffn", ctypes.c_int32),
        ("word_kind", ctypes.c_int32),
        ("first_token_only", ctypes.c_int32),
        ("eps", ctypes.c_float),
        ("words", ctypes.c_void_p),
        ("word_scales", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("types", ctypes.c_void_p),
        ("norm_w", ctypes.c_void_p),
        ("norm_b", ctypes.c_void_p),
        ("layer", ctypes.POINTER(_Layer)),
    )


def is_built() -> bool:
    """Whether the kernels were compiled when the package was installed."""
    return _FILE.is_file()


@cache
def _kernels() -> ctypes.CDLL:
    """Load the library once. Raises ``OSError`` where it is absent or for another machine."""
    library = ctypes.CDLL(str(_FILE))
    library.ondol_encoder_open.restype = ctypes.c_void_p
    library.ondol_encoder_open.argtypes = (ctypes.POINTER(_Model), ctypes.c_int32)
    library.ondol_encoder_run.restype = ctypes.c_int32
    library.ondol_encoder_run.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int32,
        *(ctypes.c_void_p for _ in range(4)),
    )
    library.ondol_encoder_close.restype = None
    library.ondol_encoder_close.argtypes = (ctypes.c_void_p,)
    return library


class PackedEncoder:
    """An open encoder. Exactly one thread calls ``run``; ``close`` ends its workers.

    ``first_token`` says that a text's row is its first token's, else the mean of all its tokens'.
    Raises ``OSError`` where the kernels are not built, ``KeyError`` for weights that lack an array,
    and ``MemoryError`` when there is none for the workers.
    """

    def __init__(self, weights: PackedWeights, *, threads: int, first_token: bool) -> None:
        arrays = weights.arrays
        self._arrays = arrays  # the kernels point into them, and into the structures
        self._layers = (_Layer * weights.shape.layers)(
            *(_layer(arrays, f"l{index}.") for index in range(weights.shape.layers))
        )
        self._hidden = weights.shape.hidden
        model = _model(weights, self._layers, first_token=first_token)
        self._handle: int | None = _kernels().ondol_encoder_open(ctypes.byref(model), threads)
        if not self._handle:
            raise MemoryError("there is no memory for the encoder's workers")

    def run(self, batch: Sequence[Tokens]) -> FloatArray:
        """Return float32 ``(texts, hidden)``, not normalised; a reranker's logits ``(texts, 1)``.

        Raises ``KernelError`` for ids or lengths that the model does not have and once closed, and
        ``MemoryError`` when there is none for a batch of this size.
        """
        if self._handle is None:
            raise KernelError("the encoder is closed", hint="open it again")
        offsets = np.zeros(len(batch) + 1, np.int32)
        np.cumsum([len(item.ids) for item in batch], out=offsets[1:])
        ids = np.fromiter((i for item in batch for i in item.ids), np.int32, offsets[-1])
        types = np.fromiter((i for item in batch for i in item.type_ids), np.int32, offsets[-1])
        rows = np.empty((len(batch), self._hidden), np.float32)
        if len(batch):
            self._check(offsets, ids, types)
            pointers = (array.ctypes.data for array in (offsets, ids, types, rows))
            if _kernels().ondol_encoder_run(self._handle, len(batch), *pointers):
                raise MemoryError(f"there is no memory for a batch of {offsets[-1]} tokens")
        return self._logits(rows) if "head.o.w" in self._arrays else rows

    def close(self) -> None:
        """End the worker threads and let go of the weights; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle:
            _kernels().ondol_encoder_close(handle)
        self._arrays = {}

    def _check(self, offsets: IntVector, ids: IntVector, types: IntVector) -> None:
        """Refuse what would lie outside the weights: the kernels trust what they get."""
        arrays, lengths = self._arrays, np.diff(offsets)
        words = len(arrays["words" if "words" in arrays else "words.packed"])
        positions = len(arrays["positions"])
        if lengths.min() < 1 or lengths.max() > positions:
            raise KernelError(
                f"a text has {lengths.max() if lengths.min() else 0} tokens; "
                f"the model takes 1 to {positions}",
                hint="shorten the text",
            )
        if ids.min() < 0 or ids.max() >= words:
            raise KernelError(f"token ids must lie in 0…{words - 1}", hint="send ids of this model")
        np.clip(types, 0, len(arrays["types"]) - 1, out=types)

    def _logits(self, first: FloatArray) -> FloatArray:
        """Apply a reranker's head to first tokens: dense, tanh, one logit."""
        arrays = self._arrays
        dense = np.tanh(first @ arrays["head.d.w"].T + arrays["head.d.b"])
        logits: FloatArray = dense @ arrays["head.o.w"].T + arrays["head.o.b"]
        return logits


def _model(weights: PackedWeights, layers: Any, *, first_token: bool) -> _Model:
    arrays, shape = weights.arrays, weights.shape
    packed = "words.packed" in arrays
    return _Model(
        hidden=shape.hidden,
        layers=shape.layers,
        heads=shape.heads,
        ffn=shape.ffn,
        word_kind=_PACKED_ROWS if packed else _FP16_ROWS,
        first_token_only=int(first_token),
        eps=shape.eps,
        words=_address(arrays, "words.packed" if packed else "words"),
        word_scales=_address(arrays, "words.scales") if packed else None,
        positions=_address(arrays, "positions"),
        types=_address(arrays, "types"),
        norm_w=_address(arrays, "norm.w"),
        norm_b=_address(arrays, "norm.b"),
        layer=layers,
    )


def _layer(arrays: Mapping[str, NDArray[Any]], prefix: str) -> _Layer:
    groups = sum(name.startswith(f"{prefix}fo.") and name.endswith(".bias") for name in arrays)
    return _Layer(
        qkv=_linear(arrays, f"{prefix}qkv.0"),
        attended=_linear(arrays, f"{prefix}ao.0"),
        wide=_linear(arrays, f"{prefix}fi.0"),
        narrow=(_Linear * groups)(*(_linear(arrays, f"{prefix}fo.{i}") for i in range(groups))),
        qkv_in=_address(arrays, f"{prefix}qkv.factors"),
        attended_in=_address(arrays, f"{prefix}ao.factors"),
        wide_in=_address(arrays, f"{prefix}fi.factors"),
        narrow_in=_address(arrays, f"{prefix}fo.factors"),
        attended_norm_w=_address(arrays, f"{prefix}aln.w"),
        attended_norm_b=_address(arrays, f"{prefix}aln.b"),
        output_norm_w=_address(arrays, f"{prefix}oln.w"),
        output_norm_b=_address(arrays, f"{prefix}oln.b"),
    )


def _linear(arrays: Mapping[str, NDArray[Any]], name: str) -> _Linear:
    parts = ("weights", "scale", "sum", "bias")
    return _Linear(*(_address(arrays, f"{name}.{part}") for part in parts))


def _address(arrays: Mapping[str, NDArray[Any]], name: str) -> int:
    return int(arrays[name].ctypes.data)

"""The compiled kernels as Python sees them: where the library is, its structures, its calls.

Mirrors the interface at the foot of ``native/encoder.c``. Knows no file format and no tokenizer.
Calls release the interpreter lock while they run.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

FP16_ROWS, PACKED_ROWS = 0, 1
"""How the word table is kept: fp16, or 4-bit blocks of 32 with fp16 scales."""

_FILE = Path(__file__).with_name("native") / "encoder.so"


class Linear(ctypes.Structure):
    """Packed int8 weights of one multiplication; see ``linear`` in the C file."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("weights", "scale", "sum", "bias"))


class Layer(ctypes.Structure):
    """One layer; ``narrow`` points to one ``Linear`` a group of inputs."""

    _fields_ = (
        ("qkv", Linear),
        ("attended", Linear),
        ("wide", Linear),
        ("narrow", ctypes.POINTER(Linear)),
        ("qkv_in", ctypes.c_void_p),
        ("attended_in", ctypes.c_void_p),
        ("wide_in", ctypes.c_void_p),
        ("narrow_in", ctypes.c_void_p),
        ("attended_norm_w", ctypes.c_void_p),
        ("attended_norm_b", ctypes.c_void_p),
        ("output_norm_w", ctypes.c_void_p),
        ("output_norm_b", ctypes.c_void_p),
    )


class Model(ctypes.Structure):
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
        ("layer", ctypes.POINTER(Layer)),
    )


def is_built() -> bool:
    """Whether the kernels were compiled when the package was installed."""
    return _FILE.is_file()


@cache
def kernels() -> ctypes.CDLL:
    """Load the library once. Raises ``OSError`` where it is absent or for another machine."""
    library = ctypes.CDLL(str(_FILE))
    library.ondol_encoder_open.restype = ctypes.c_void_p
    library.ondol_encoder_open.argtypes = (ctypes.POINTER(Model), ctypes.c_int32)
    library.ondol_encoder_run.restype = ctypes.c_int32
    library.ondol_encoder_run.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int32,
        *(ctypes.c_void_p for _ in range(4)),
    )
    library.ondol_encoder_close.restype = None
    library.ondol_encoder_close.argtypes = (ctypes.c_void_p,)
    return library

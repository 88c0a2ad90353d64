"""The GGUF container and its block formats: read in place, and turned into numbers.

Knows the layout of the file and of the blocks, not what weights mean. Tensor bytes are views into
the mapped file; what is done to them are pure functions on arrays of blocks ``(blocks, bytes of
one)``. Sources: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and ggml's
``ggml-quants.c`` (dequantize_row_*).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.kernel_error import KernelError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
BlockType = Literal["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]

TYPE_NUMBERS: Final[dict[int, BlockType]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K",
}  # fmt: skip
BLOCKS: Final[dict[BlockType, tuple[int, int]]] = {
    "F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
    "Q5_1": (32, 24), "Q8_0": (32, 34), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}  # fmt: skip
"""Elements and bytes of one block."""

_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LARGEST_HEADER = 512 * 1024 * 1024
"""Far above a real one (a vocabulary of 256,000 takes 10 MB), so that a lying count ends early."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One entry of the directory; ``shape`` is in GGUF's order, the row length first."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    offset: int

    @property
    def bytes(self) -> int:
        elements, size = BLOCKS[self.type]
        return prod(self.shape) // elements * size

    @property
    def row_bytes(self) -> int:
        elements, size = BLOCKS[self.type]
        return self.shape[0] // elements * size


@dataclass(frozen=True, slots=True)
class Gguf:
    """An opened file. ``head`` is everything before the tensor directory, as it stands."""

    path: Path
    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    head: bytes
    data: Bytes

    def raw(self, tensor: GgufTensor) -> Bytes:
        """Return the tensor's bytes as blocks ``(blocks, bytes of one)``."""
        cut = self.data[tensor.offset : tensor.offset + tensor.bytes]
        return cut.reshape(-1, BLOCKS[tensor.type][1])


def read_gguf(path: Path) -> Gguf:
    """Open a GGUF file; raises ``KernelError`` for one that is damaged or of an unknown kind."""
    try:
        mapped: Bytes = np.memmap(path, np.uint8, mode="r")
        return _read(path, mapped)
    except (OSError, ValueError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise KernelError(
            f"{path.name} cannot be read as GGUF: {error or type(error).__name__}",
            hint="fetch it again with `ondol models pull`",
        ) from error


def _read(path: Path, mapped: Bytes) -> Gguf:
    reader = _Reader(mapped[:_LARGEST_HEADER])
    if reader.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    _, tensors, keys = reader.unpack("IQQ")
    metadata = {}
    for _ in range(keys):
        name = reader.string()
        metadata[name] = reader.value(reader.unpack("I")[0])
    directory_at = reader.at
    directory = tuple(_tensor(reader) for _ in range(tensors))
    step = int(metadata.get("general.alignment", 32))
    start = -(-reader.at // step) * step
    for tensor in directory:
        if start + tensor.offset + tensor.bytes > mapped.size:
            raise ValueError(f"it ends before {tensor.name} does")
    return Gguf(path, metadata, directory, mapped[:directory_at].tobytes(), mapped[start:])


def _tensor(reader: _Reader) -> GgufTensor:
    name = reader.string()
    shape = reader.unpack(f"{reader.unpack('I')[0]}Q")
    number, offset = reader.unpack("IQ")
    if number not in TYPE_NUMBERS:
        raise ValueError(f"{name} is of block type {number}, which is not known here")
    return GgufTensor(name, shape, TYPE_NUMBERS[number], offset)


class _Reader:
    """A place in the header that moves on with each value read."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self._data):
            raise ValueError("it ends in the middle of its header")
        self.at += count
        return self._data[self.at - count : self.at].tobytes()

    def unpack(self, layout: str) -> tuple[Any, ...]:
        full = "<" + layout
        return struct.unpack(full, self.take(struct.calcsize(full)))

    def string(self) -> str:
        return self.take(self.unpack("Q")[0]).decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.unpack("IQ")
            if inner in _PLAIN:
                return list(self.unpack(f"{count}{_PLAIN[inner]}"))
            return [self.value(inner) for _ in range(count)]
        return self.unpack(_PLAIN[kind])[0]


def dequantised(blocks: Bytes, kind: BlockType) -> Floats:
    """Return float32 ``(blocks, elements of one)``; raises ``KeyError`` for a type without a rule."""
    return _RULES[kind](blocks)


def to_q8_0(blocks: Bytes, kind: BlockType) -> Bytes:
    """Return the same numbers as Q8_0 blocks: one half-precision scale for 32 signed bytes.

    Exact for Q5_0, whose levels are a part of Q8_0's own; others are rounded to 8 bits per 32.
    """
    if kind == "Q5_0":
        return np.concatenate([blocks[:, :2], _five_bits(blocks, 2).view(np.uint8)], axis=1)
    values = dequantised(blocks, kind).reshape(-1, 32)
    scales = (np.abs(values).max(1, keepdims=True) / 127).astype("<f2")
    wide = scales.astype(np.float32)
    levels = np.divide(values, wide, out=np.zeros_like(values), where=wide > 0)
    bytes_ = np.rint(levels).clip(-127, 127).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), bytes_.view(np.uint8)], axis=1)


def _half(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Return the low halves of all bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _five_bits(blocks: Bytes, at: int) -> NDArray[np.int8]:
    """Return 5-bit levels less 16; the fifth bits lie in four bytes at ``at``."""
    high = np.ascontiguousarray(blocks[:, at : at + 4]).view("<u4")
    fifth = ((high >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8) << 4
    return (_nibbles(blocks[:, at + 4 :]) | fifth).astype(np.int8) - 16


def _q8_0(blocks: Bytes) -> Floats:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _half(blocks, 0)


def _q5_0(blocks: Bytes) -> Floats:
    return _five_bits(blocks, 2).astype(np.float32) * _half(blocks, 0)


def _q5_1(blocks: Bytes) -> Floats:
    levels = _five_bits(blocks, 4).astype(np.float32) + 16
    return levels * _half(blocks, 0) + _half(blocks, 2)


def _q4_0(blocks: Bytes) -> Floats:
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - 8) * _half(blocks, 0)


def _q4_1(blocks: Bytes) -> Floats:
    return _nibbles(blocks[:, 4:]).astype(np.float32) * _half(blocks, 0) + _half(blocks, 2)


def _six_bit_scales(packed: Bytes) -> tuple[Floats, Floats]:
    """Return the eight scales and eight minima in the twelve bytes of a 4- or 5-bit K block."""
    low, mid, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=1)
    minima = np.concatenate([mid & 63, (high >> 4) | ((mid >> 6) << 4)], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k(blocks: Bytes, levels: Floats) -> Floats:
    """Return ``levels`` ``(n, 8, 32)`` scaled and shifted by a K block's own scales."""
    scales, minima = _six_bit_scales(blocks[:, 4:16])
    steps, shifts = scales * _half(blocks, 0), minima * _half(blocks, 2)
    values: Floats = levels * steps[:, :, None] - shifts[:, :, None]
    return values.reshape(len(blocks), 256)


def _pairs(packed: Bytes) -> Bytes:
    """Return 128 bytes as eight groups of 32: low and high halves of each 32 bytes in turn."""
    quarters = packed.reshape(-1, 4, 32)
    return np.stack([quarters & 15, quarters >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Floats:
    return _k(blocks, _pairs(blocks[:, 16:]).astype(np.float32))


def _q5_k(blocks: Bytes) -> Floats:
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return _k(blocks, (_pairs(blocks[:, 48:]) | (fifth << 4)).astype(np.float32))


def _q6_k(blocks: Bytes) -> Floats:
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _half(blocks, 208)
    halves = []
    for half in range(2):
        low = blocks[:, 64 * half : 64 * half + 64]
        high = blocks[:, 128 + 32 * half : 160 + 32 * half]
        left, right = low[:, :32], low[:, 32:]
        halves += [
            (left & 15) | ((high & 3) << 4),
            (right & 15) | (((high >> 2) & 3) << 4),
            (left >> 4) | (((high >> 4) & 3) << 4),
            (right >> 4) | ((high >> 6) << 4),
        ]
    levels = np.concatenate(halves, axis=1).astype(np.float32) - 32
    return levels * np.repeat(scales, 16, axis=1)


_RULES: dict[BlockType, Callable[[Bytes], Floats]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k,
    "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip

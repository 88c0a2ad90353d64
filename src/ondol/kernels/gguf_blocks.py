"""GGUF's block formats to numbers, and to its plain 8-bit blocks.

Pure functions on arrays of blocks ``(blocks, bytes of one)``. ``to_q8_0`` is exact for 5-bit blocks
with one scale (Q5_0), whose levels are a part of its own; others are rounded to 8 bits per 32.
Source: ggml's ``ggml-quants.c`` (dequantize_row_*).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.gguf import BlockType, Bytes

Floats = NDArray[np.float32]


def dequantised(blocks: Bytes, kind: BlockType) -> Floats:
    """Return float32 ``(blocks, elements of one)``; raises ``KeyError`` for a type without a rule."""
    return _RULES[kind](blocks)


def to_q8_0(blocks: Bytes, kind: BlockType) -> Bytes:
    """Return the same numbers as Q8_0 blocks: one half-precision scale for 32 signed bytes."""
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

"""The weights of a BERT or XLM-R encoder as every reader hands them to the graph builder.

Owns the canonical tensor names (those of the E5S1 format) and the two ways a matrix may be kept:
float32, or 4-bit blocks of 32 along the row. Knows no file format and no runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
"""Elements that share one scale in a 4-bit matrix (GGUF's Q4_0)."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Q4Matrix:
    """A 4-bit matrix: value = (nibble - 8) x the scale of its block of 32 along the row.

    ``packed`` is uint8 ``(rows, columns / 2)`` with element 2i in the low and 2i + 1 in the high
    nibble of byte i; ``scales`` is float32 ``(rows, columns / 32)``.
    """

    packed: NDArray[np.uint8]
    scales: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        return self.packed.shape[0], self.packed.shape[1] * 2

    def dequantised(self) -> FloatArray:
        """Return the float32 matrix ``(rows, columns)`` that the blocks stand for, exactly."""
        rows, columns = self.shape
        nibbles = np.empty((rows, columns), np.uint8)
        nibbles[:, 0::2] = self.packed & 15
        nibbles[:, 1::2] = self.packed >> 4
        values = nibbles.astype(np.float32) - np.float32(8)
        blocks = values.reshape(rows, columns // BLOCK, BLOCK) * self.scales[:, :, None]
        return np.ascontiguousarray(blocks.reshape(rows, columns))


Matrix = FloatArray | Q4Matrix


@dataclass(frozen=True, slots=True)
class BertShape:
    """The sizes of an encoder (post-norm, exact GELU, positions counted from 0).

    ``classifier`` says that a relevance head (dense, tanh, one logit) follows the first token.
    """

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    types: int
    eps: float
    classifier: bool = False


@dataclass(frozen=True, slots=True)
class BertWeights:
    """A shape and a way to read one tensor at a time, so that all of them never lie in memory.

    ``matrix`` takes ``emb.word``, ``emb.pos``, ``emb.type``, ``lN.{q,k,v,ao,fi,fo}.w`` or
    ``head.{d,o}.w`` and returns ``(out, in)``; ``vector`` takes the ``.b`` of these and the norms
    (``emb.ln``, ``lN.aln``, ``lN.oln``, each ``.w`` and ``.b``). Both raise ``KernelError`` for a
    tensor that is missing or of another size.
    """

    shape: BertShape
    matrix: Callable[[str], Matrix]
    vector: Callable[[str], FloatArray]


def as_float(matrix: Matrix) -> FloatArray:
    """Return ``matrix`` as float32, whichever way it is kept."""
    return matrix.dequantised() if isinstance(matrix, Q4Matrix) else matrix


def expected_shape(name: str, shape: BertShape) -> tuple[int, ...]:
    """Return the shape that the tensor ``name`` (canonical) must have in an encoder of ``shape``."""
    part = name.split(".", 1)[1] if name.startswith("l") else name
    odd: dict[str, tuple[int, ...]] = {
        "emb.word": (shape.vocab, shape.hidden),
        "emb.pos": (shape.positions, shape.hidden),
        "emb.type": (shape.types, shape.hidden),
        "fi.w": (shape.ffn, shape.hidden),
        "fo.w": (shape.hidden, shape.ffn),
        "fi.b": (shape.ffn,),
        "head.d.w": (shape.hidden, shape.hidden),
        "head.o.w": (1, shape.hidden),
        "head.o.b": (1,),
    }
    if part in odd:
        return odd[part]
    if part in {"q.w", "k.w", "v.w", "ao.w"}:
        return shape.hidden, shape.hidden
    return (shape.hidden,)

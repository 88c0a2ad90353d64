"""Turns float32 weights into 8-bit ones, symmetrically and per output channel.

Pure functions on arrays. Activations are quantised per row inside the graph (see ``bert_graph``),
so that a text's vector does not depend on the texts that share its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import FloatArray


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """``values`` int8 ``(in, out)`` as ``MatMulInteger`` wants it; ``scales`` float32 ``(out,)``."""

    values: NDArray[np.int8]
    scales: FloatArray


def quantise_channels(weights: FloatArray, *, levels: int = 127) -> Int8Matrix:
    """Quantise ``(out, in)`` weights; each output channel's largest magnitude becomes ``levels``.

    A channel of zeros (or of denormals) becomes zero. The error of a weight is at most half its channel's scale.
    """
    scales = np.abs(weights).max(axis=1) / np.float32(levels)
    scales[scales < np.finfo(np.float32).tiny] = 1
    values = np.rint(weights / scales[:, None]).astype(np.int8)
    return Int8Matrix(values=np.ascontiguousarray(values.T), scales=scales)

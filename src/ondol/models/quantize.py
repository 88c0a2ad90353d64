"""Turns float32 weights into 8-bit ones, symmetrically and per output channel.

Pure functions on arrays. Activations are quantised per row inside the graph (see ``bert_graph``),
so that a text's vector does not depend on the texts that share its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ondol.models.bert import FloatArray

_CPUINFO = Path("/proc/cpuinfo")


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


def weight_levels(*, cpuinfo: Path = _CPUINFO) -> int:
    """Return 127, or 63 on an x86 CPU without VNNI.

    There, ONNX Runtime adds pairs of u8 x s8 products in 16 bits, which overflow with full-range
    weights (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html,
    "when and why do I need to try U8U8").
    """
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return 127
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    if not flags or "avx512_vnni" in flags or "avx_vnni" in flags:
        return 127
    return 63

"""Rounds weights to 8 bits: each by itself, or so that their products come out right.

``quantise_channels`` takes each weight's nearest step. ``round_weights`` knows the inputs: each
column's rounding error is made up for by the columns that are rounded after it, weighted by the
inputs' second moments (GPTQ, Frantar et al. 2022, arXiv:2210.17323; here in float64). Before it, channels with large inputs are scaled down and their weights up: SmoothQuant (Xiao et al.
2022, arXiv:2211.10438). Pure functions on arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import FloatArray

_BLOCK = 128
"""Columns whose corrections are applied together, as one product."""

_DAMPING = 0.05
"""Share of the mean moment added to every channel's own, so that the inverse exists."""

_LEAST = np.float32(1e-5)
"""Magnitudes below it count as this, so that a dead channel's factor stays finite."""

_STRENGTH = 0.55
"""How much of the inputs' unevenness is moved to the weights.

Cosine to float32 with 0.3: 0.9991, with 0.7: 0.9994, in between: 0.9995 (docs/log.md)."""


@dataclass(frozen=True, slots=True)
class RoundedMatrix:
    """int8 ``values`` ``(out, in)`` and float32 ``scales`` ``(out,)``."""

    values: NDArray[np.int8]
    scales: FloatArray


def smoothing(largest: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the factor for each input channel ``(in,)`` that evens inputs and weights out.

    Inputs are to be multiplied, weights ``(out, in)`` divided by it. ``largest`` are the inputs'
    magnitudes. The factors' geometric mean is 1.
    """
    inputs = np.maximum(largest, _LEAST)
    columns = np.maximum(np.abs(weights).max(axis=0), _LEAST)
    logs = (1 - _STRENGTH) * np.log(columns) - _STRENGTH * np.log(inputs)
    factors: FloatArray = np.exp(logs - logs.mean()).astype(np.float32)
    return factors


def round_weights(
    weights: FloatArray, moments: NDArray[np.float64], *, levels: int = 127
) -> RoundedMatrix:
    """Round ``(out, in)`` weights to ±``levels``; ``moments`` ``(in, in)`` are the mean of x xᵀ.

    Raises ``ValueError`` when the moments are not finite.
    """
    if not np.isfinite(moments).all():
        raise ValueError("the calibration texts gave activations that are not finite")
    scales = (np.abs(weights).max(axis=1) / levels).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1
    scale = scales.astype(np.float64)
    left = weights.astype(np.float64)
    values = np.empty(weights.shape, np.int8)
    correction = _corrections(moments)
    for start in range(0, weights.shape[1], _BLOCK):
        end = min(start + _BLOCK, weights.shape[1])
        errors = np.zeros((len(weights), end - start))
        block = left[:, start:end]
        for i in range(end - start):
            column = start + i
            rounded = np.clip(np.rint(block[:, i] / scale), -levels, levels)
            values[:, column] = rounded
            errors[:, i] = (block[:, i] - rounded * scale) / correction[column, column]
            block[:, i + 1 :] -= np.outer(errors[:, i], correction[column, column + 1 : end])
        left[:, end:] -= errors @ correction[start:end, end:]
    return RoundedMatrix(values=values, scales=scales)


def _corrections(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper Cholesky factor of the damped moments' inverse."""
    damped = moments.copy()
    diagonal = np.diag_indices_from(damped)
    damped[diagonal] += _DAMPING * max(float(damped[diagonal].mean()), 1e-12)
    upper: NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper


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

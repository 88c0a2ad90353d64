"""An encoder for static 8-bit multiplication: activation ranges and rounded weights, from texts.

Each multiplication's input is seen once, over all tokens; its range is fitted, and its weights are
rounded against the steps that they will really be multiplied with. What remains of the error on
average goes into the bias. Knows no runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import BertWeights, FloatArray, as_float
from ondol.kernels.calibration.ranges import ActivationRange, fit_range
from ondol.kernels.calibration.statistics import Tokens, hidden_states
from ondol.kernels.rounding import round_weights

_EXTRA_ROWS = 32
"""Rows for splitting the largest channels between the feed-forward products: few are very large."""


@dataclass(frozen=True, slots=True)
class StaticLinear:
    """A multiplication of steps: int8 ``values`` ``(out, rows)``, float32 ``scales`` and ``bias``."""

    values: NDArray[np.int8]
    scales: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class StaticInt8:
    """``ranges`` by input (``lN.qkv``, ``lN.ao``, ``lN.fi``, ``lN.fo``), ``linears`` by weights' name."""

    ranges: Mapping[str, ActivationRange]
    linears: Mapping[str, StaticLinear]


def calibrate(weights: BertWeights, items: Sequence[Tokens], *, levels: int = 127) -> StaticInt8:
    """Return the 8-bit encoder; weights lie within ±``levels``.

    Raises ``ValueError`` when there is nothing to calibrate on.
    """
    if not items:
        raise ValueError("there are no texts to calibrate with")
    ranges: dict[str, ActivationRange] = {}
    linears: dict[str, StaticLinear] = {}

    def observe(name: str, x: FloatArray) -> None:
        layer, part = name.split(".")
        names = [f"{layer}.{one}" for one in ("qkv" if part == "qkv" else [part])]
        matrix = np.concatenate([as_float(weights.matrix(f"{one}.w")) for one in names])
        bias = np.concatenate([weights.vector(f"{one}.b") for one in names])
        found = fit_range(
            x,
            weights=matrix,
            rectified=part == "fo",
            extra_rows=_EXTRA_ROWS if part == "fo" else 0,
        )
        ranges[name] = found
        linear = _rounded(matrix, bias, x, found, levels=levels)
        linears.update(zip(names, _parted(linear, len(names)), strict=True))

    hidden_states(weights, items, observe=observe)
    return StaticInt8(ranges=ranges, linears=linears)


def _rounded(
    matrix: FloatArray, bias: FloatArray, x: FloatArray, found: ActivationRange, *, levels: int
) -> StaticLinear:
    steps = found.quantised(x)
    mean = steps.mean(axis=0)
    moments = ((steps - mean).T @ (steps - mean)).astype(np.float64) / len(x)
    rounded = round_weights(matrix[:, found.source] * found.step, moments, levels=levels)
    bias = bias + matrix @ x.mean(axis=0)
    bias -= (rounded.values.astype(np.float32) @ mean) * rounded.scales
    return StaticLinear(values=rounded.values, scales=rounded.scales, bias=bias)


def _parted(linear: StaticLinear, count: int) -> list[StaticLinear]:
    """Take apart what was stacked: ``count`` multiplications of one input."""
    parts = zip(
        *(np.split(array, count) for array in (linear.values, linear.scales, linear.bias)),
        strict=True,
    )
    return [StaticLinear(values, scales, bias) for values, scales, bias in parts]

"""An encoder for static 8-bit multiplication: activation ranges and rounded weights, from texts.

Each multiplication's input is seen once, over all tokens; its range is fitted, and its weights are
rounded against the steps that they will really be multiplied with. What remains of the error on
average goes into the bias. Knows no runtime.

Each input channel gets its own lowest value and step: both are folded into the weights and biases
around it, so they cost nothing when running. Steps share the difficulty between activations and
weights (SmoothQuant, https://arxiv.org/abs/2211.10438) about each channel's own middle (Outlier
Suppression+, https://arxiv.org/abs/2304.09145). A channel far larger than the others may be split
into several, each for a part of its range (after OCS, https://arxiv.org/abs/1901.09504). Ranges are
wider than what was seen, because cutting a value that calibration did not meet costs far more than
coarser steps: docs/adr/0022 has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import BertWeights, FloatArray, as_float
from ondol.kernels.calibration.calibration_statistics import Tokens, hidden_states
from ondol.kernels.rounding import round_weights

LEVELS = 255
"""The largest step; 0 is the smallest."""

_HEADROOM = np.float32(1.25)
"""How much wider than the values seen a range is."""

_BALANCE = np.float32(1.5)
"""How far small steps are widened for the sake of the weights; see ``_widened``."""

_USUAL = 0.9
"""A rarely active channel is given the range of this quantile of the channels beside it."""

_TINY = np.float32(1e-6)
"""Keeps the step of a channel that never changes above zero."""

_EXTRA_ROWS = 32
"""Rows for splitting the largest channels between the feed-forward products: few are very large."""


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """What was fitted for one multiplication's input.

    Row k reads channel ``source[k]`` as q from 0 to 255, ``(x - low[k]) / step[k]`` rounded and cut;
    a channel is about the sum of ``step x q`` over its rows, plus a constant.
    """

    source: NDArray[np.int64]
    low: FloatArray
    step: FloatArray

    def quantised(self, x: FloatArray) -> FloatArray:
        """Return q as float32 ``(tokens, rows)`` for ``x`` ``(tokens, channels)``."""
        steps: FloatArray = np.rint((x[:, self.source] - self.low) / self.step)
        return np.clip(steps, 0, LEVELS)


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
        names = [f"{layer}.{letter}" for letter in ("qkv" if part == "qkv" else [part])]
        matrix = np.concatenate([as_float(weights.matrix(f"{linear}.w")) for linear in names])
        bias = np.concatenate([weights.vector(f"{linear}.b") for linear in names])
        fitted = fit_range(
            x,
            weights=matrix,
            rectified=part == "fo",
            extra_rows=_EXTRA_ROWS if part == "fo" else 0,
        )
        ranges[name] = fitted
        rounded = _rounded(matrix, bias, x, fitted, levels=levels)
        linears.update(zip(names, _parted(rounded, len(names)), strict=True))

    hidden_states(weights, items, observe=observe)
    return StaticInt8(ranges=ranges, linears=linears)


def _rounded(
    matrix: FloatArray, bias: FloatArray, x: FloatArray, fitted: ActivationRange, *, levels: int
) -> StaticLinear:
    steps = fitted.quantised(x)
    mean = steps.mean(axis=0)
    moments = ((steps - mean).T @ (steps - mean)).astype(np.float64) / len(x)
    rounded = round_weights(matrix[:, fitted.source] * fitted.step, moments, levels=levels)
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


def fit_range(
    x: FloatArray, *, weights: FloatArray, rectified: bool = False, extra_rows: int = 0
) -> ActivationRange:
    """Return the range for inputs ``x`` ``(tokens, channels)`` of ``weights`` ``(outputs, channels)``.

    ``rectified`` inputs have a floor that calibration knows well (GELU's) and open tops. Up to
    ``extra_rows`` are spent on splitting the largest channels.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    if rectified:
        width = (high - low) * _HEADROOM
        width = np.maximum(width, np.quantile(width, _USUAL))
    else:
        margin = (high - low) * (_HEADROOM - 1) / 2
        low, width = low - margin, high - low + 2 * margin
    step = np.maximum(width, _TINY) / np.float32(LEVELS)
    if not rectified:
        wider = _widened(x, step, weights=weights)
        low, step = low - (wider - step) * np.float32(LEVELS / 2), wider
    source, low, step = _split(low, step, weights=weights, extra_rows=extra_rows)
    return ActivationRange(source=source, low=low, step=step)


def _split(
    low: FloatArray, step: FloatArray, *, weights: FloatArray, extra_rows: int
) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Return source, low and step of the rows after splitting the channels that weigh most."""
    rows = np.ones(len(step), np.int64)
    burden = np.abs(weights).max(axis=0) * step
    for _ in range(extra_rows):
        rows[np.argmax(burden / rows)] += 1
    source = np.repeat(np.arange(len(step)), rows)
    part = np.concatenate([np.arange(count) for count in rows]).astype(np.float32)
    parted = (step / rows)[source].astype(np.float32)
    return source, (low[source] + part * parted * LEVELS).astype(np.float32), parted


def _widened(x: FloatArray, step: FloatArray, *, weights: FloatArray) -> FloatArray:
    """Return steps no smaller than ``step``, widened where that spares the weights.

    A channel's rounding errors, its own and its weights', are even where the step is the fourth
    root of variance over weight.
    """
    even = (x.var(axis=0) / np.maximum((weights**2).sum(axis=0), _TINY)) ** 0.25
    unit = np.median(step / np.maximum(even, _TINY))
    wider: FloatArray = np.maximum(step, even * unit * _BALANCE).astype(np.float32)
    return wider

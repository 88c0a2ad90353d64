"""What the 256 steps of an 8-bit activation stand for, fitted to samples. Pure functions.

Each input channel gets its own lowest value and step: both are folded into the weights and biases
around it, so they cost nothing when running. Steps share the difficulty between activations and
weights (SmoothQuant, https://arxiv.org/abs/2211.10438) about each channel's own middle (Outlier
Suppression+, https://arxiv.org/abs/2304.09145). A channel far larger than the others may be split
into several, each for a part of its range (after OCS, https://arxiv.org/abs/1901.09504).

Ranges are wider than what was seen, because cutting a value that calibration did not meet costs far
more than coarser steps: docs/adr/0022 has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import FloatArray

LEVELS = 255
"""The largest step; 0 is the smallest."""

_HEADROOM = np.float32(1.25)
"""How much wider than the values seen a range is."""

_BALANCE = np.float32(1.5)
"""How far small steps are widened for the sake of the weights; see ``_widened``."""

_USUAL = 0.9
"""A rarely active channel is given the range of this quantile of the channels beside it."""

_TINY = np.float32(1e-6)


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

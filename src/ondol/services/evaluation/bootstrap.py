"""How sure a mean over questions is: percentile bootstrap, of one run and of two compared.

Seeded, so that equal scores give equal intervals. Source: Efron & Tibshirani, "An Introduction to
the Bootstrap" (1993), ch. 13; paired over questions as Smucker, Allan & Carterette, "A Comparison of
Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 20240607
RESAMPLES = 2000
LEVEL = 0.95
_CELLS = 2_000_000  # resampled indices held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the bounds that hold ``LEVEL`` of the resampled means."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of ``other - base`` with bounds, and the share of resamples in which it is above 0.

    Above 0.975 or below 0.025 the difference is unlikely to be chance.
    """

    mean: float
    low: float
    high: float
    share_better: float


def interval(values: Sequence[float], *, seed: int = SEED) -> Interval:
    """Return the mean of ``values`` with its 95 % interval; zeros where there are none."""
    if not values:
        return Interval(0.0, 0.0, 0.0)
    means = _means(np.asarray(values, dtype=np.float64), seed)
    low, high = _bounds(means)
    return Interval(float(np.mean(values)), low, high)


def difference(base: Sequence[float], other: Sequence[float], *, seed: int = SEED) -> Difference:
    """Return how ``other`` differs from ``base``, question by question.

    Raises ``ValueError`` where the two are not of one length.
    """
    if len(base) != len(other):
        raise ValueError(f"{len(base)} and {len(other)} scores cannot be paired")
    if not base:
        return Difference(0.0, 0.0, 0.0, 0.5)
    gained = np.asarray(other, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    means = _means(gained, seed)
    low, high = _bounds(means)
    # A tie counts half: two equal settings are better in half of the resamples.
    share = float(np.mean(means > 0) + np.mean(means == 0) / 2)
    return Difference(float(gained.mean()), low, high, share)


def _means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the means of resamples, a bounded number of them at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // len(values))
    parts = [
        values[
            rng.integers(0, len(values), size=(min(at_once, RESAMPLES - done), len(values)))
        ].mean(axis=1)
        for done in range(0, RESAMPLES, at_once)
    ]
    return np.concatenate(parts)


def _bounds(means: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)

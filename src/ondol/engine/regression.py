"""Non-negative least squares over a stream in which the past fades; a handful of features.

Starts from a prior that counts as ``strength`` observations and never quite goes, so that a feature
that has not been seen varying keeps its prior. Errors count relative to what was observed. Source:
recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 10).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class FadingFit:
    """``predict`` is the sum of coefficients times features; no coefficient is below zero.

    ``scale`` is the usual size of each feature, ``floor`` the least value that a relative error is
    taken of. Not thread-safe.
    """

    def __init__(
        self,
        prior: Sequence[float],
        *,
        scale: Sequence[float],
        floor: float,
        strength: float = 1.0,
        fade: float = 0.97,
    ) -> None:
        self._scale = np.asarray(scale, np.float64)
        self._fade = fade
        self._floor = floor
        start = np.asarray(prior, np.float64) * self._scale
        size = float(start.sum()) or floor
        self._ridge = strength * np.eye(len(prior)) / max(size, floor) ** 2
        self._prior = self._ridge @ start
        self._gram = self._ridge.copy()
        self._moment = self._prior.copy()
        self._coefficients = tuple(float(value) for value in prior)
        self.seen = 0

    @property
    def coefficients(self) -> tuple[float, ...]:
        return self._coefficients

    def predict(self, features: Sequence[float]) -> float:
        return sum(c * x for c, x in zip(self._coefficients, features, strict=True))

    def learn(self, features: Sequence[float], observed: float) -> None:
        """Take in one observation; values that are not finite or below zero are left out."""
        row = np.asarray(features, np.float64) / self._scale
        if not (np.isfinite(row).all() and np.isfinite(observed)) or observed < 0:
            return
        weight = 1.0 / max(observed, self._floor) ** 2
        kept = 1.0 - self._fade
        self._gram = self._fade * self._gram + kept * self._ridge + weight * np.outer(row, row)
        self._moment = self._fade * self._moment + kept * self._prior + weight * observed * row
        self._coefficients = tuple(self._solve() / self._scale)
        self.seen += 1

    def _solve(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Leave out, one at a time, the feature that would go furthest below zero."""
        kept = list(range(len(self._scale)))
        found = np.zeros(len(self._scale))
        while kept:
            part = np.linalg.solve(self._gram[np.ix_(kept, kept)], self._moment[kept])
            if part.min() >= 0:
                found[kept] = part
                break
            kept.pop(int(part.argmin()))
        return found

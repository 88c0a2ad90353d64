"""Learns how to weigh the two legs of a search from questions whose documents are known.

Pure. A fixed weight is the best of a grid, looked at through a window so that one lucky question does
not choose it. A weight by query is a ridge logistic regression on which leg did better, each question
counting by how much better, and a swing around a middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.core.extras import needs_extra
from ondol.services.query_features import QueryWeight

WEIGHTS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(21))
"""The shares of the vector leg that are tried."""

FEWEST_TO_FIT = 50
"""Questions on which the legs differ, below which no weight by query is learned."""

_WINDOW = 2
_RIDGE = 3.0
_SWINGS = (0.1, 0.2, 0.3, 0.4)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: its features, and its nDCG@10 under each leg alone and at every weight."""

    features: tuple[float, ...]
    dense: float
    lexical: float
    curve: tuple[float, ...]

    def at(self, weight: float) -> float:
        """Return the score at ``weight``, between two weights of the grid on the line that joins them."""
        return float(np.interp(weight, WEIGHTS, self.curve))


def fixed_weight(samples: Sequence[Sample], *, default: float) -> float:
    """Return the share of the vector leg with the best mean score; of equals the nearest to ``default``."""
    curves = np.array([one.curve for one in samples], dtype=np.float64).mean(axis=0)
    smooth = np.array(
        [curves[max(0, at - _WINDOW) : at + _WINDOW + 1].mean() for at in range(len(WEIGHTS))]
    )
    best = float(smooth.max()) - 1e-9
    good = [weight for weight, score in zip(WEIGHTS, smooth, strict=True) if score >= best]
    return min(good, key=lambda weight: (abs(weight - default), weight))


def weight_by_query(samples: Sequence[Sample], *, middle: float) -> QueryWeight | None:
    """Return a weight that follows the query; ``None`` where the legs give nothing to learn it from.

    That is where too few questions tell them apart, or one leg is the better on all of them.
    """
    telling = [one for one in samples if one.dense != one.lexical]
    if len(telling) < FEWEST_TO_FIT or len({one.dense > one.lexical for one in telling}) == 1:
        return None
    features = np.array([one.features for one in telling], dtype=np.float64)
    centres, scales = features.mean(axis=0), features.std(axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    gained = np.array([one.dense - one.lexical for one in telling])
    beta = _logistic((features - centres) / scales, gained > 0, np.abs(gained))
    candidates = [
        QueryWeight(
            middle=centre,
            swing=swing,
            bias=float(beta[0]),
            coefficients=tuple(map(float, beta[1:])),
            centres=tuple(map(float, centres)),
            scales=tuple(map(float, scales)),
        )
        for swing in _SWINGS
        for centre in (middle - 0.1, middle, middle + 0.1)
    ]
    return max(candidates, key=lambda one: mean_by_query(samples, one))


def scores_by_query(samples: Sequence[Sample], weight: QueryWeight) -> list[float]:
    """Return the score of every question at the weight it gets."""
    return [one.at(weight.weight(one.features)) for one in samples]


def mean_by_query(samples: Sequence[Sample], weight: QueryWeight) -> float:
    return float(np.mean(scores_by_query(samples, weight)))


def _logistic(features: Floats, labels: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return bias and coefficients of a ridge logistic regression; the bias is not shrunk."""
    with needs_extra("lab"):
        from sklearn.linear_model import LogisticRegression
    model = LogisticRegression(C=1 / _RIDGE, tol=1e-8, max_iter=1000)
    model.fit(features, labels, sample_weight=weights * (len(weights) / weights.sum()))
    return np.concatenate([model.intercept_, model.coef_[0]])

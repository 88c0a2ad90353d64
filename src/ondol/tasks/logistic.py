"""Regularised multinomial logistic regression over dense columns and hashed character n-grams.

Convex, and minimised by L-BFGS from a fixed start, so that equal examples give equal weights. Needs
scipy (extra ``lab``); what is trained runs on numpy alone. The n-grams are weighed
by how much they tell the labels apart before any weight is learned (Wang and Manning 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.core.extras import needs_extra
from ondol.core.types import FloatMatrix
from ondol.language.char_ngrams import Grams
from ondol.tasks.classifier import Floats, Head, softmax

_ENOUGH = 1e-5
"""Relative fall of the loss below which another step tells nothing about unseen texts."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What training may be told; the defaults were chosen on training data alone (docs/log.md).

    ``dense_penalty`` and ``gram_penalty`` are L2; ``balance`` weighs labels by their frequency to
    this power, inverted: 0 not at all, 1 so that all count alike. ``gram_gain`` scales the n-grams
    against the standardised vectors; ``telling`` favours those that are more frequent under one label,
    by the power of their log ratio (Wang and Manning 2012).
    """

    dense_penalty: float = 1.0
    gram_penalty: float = 2.0
    gram_gain: float = 3.0
    telling: float = 1.0
    balance: float = 0.5
    bits: int = 16
    orders: tuple[int, ...] = (1, 2, 3, 4, 5)
    rounds: int = 60


def trained(
    rows: FloatMatrix | None,
    grams: Grams,
    targets: NDArray[np.int64],
    used: NDArray[np.bool_],
    wide: int,
    options: FitOptions,
) -> Head:
    """Return the weights that the ``used`` texts give; ``rows`` (texts, columns) may be absent.

    ``targets`` (texts,) are places of labels, ``wide`` their number. The temperature is left at 1.
    """
    width = 0 if rows is None else rows.shape[1]
    slots = 2**options.bits
    keep = used[grams.rows]
    owners, features = grams.rows[keep], grams.features[keep]
    gain = grams.scale * options.gram_gain
    strength = _strength(owners, features, targets, wide, options)
    values = gain[owners] * strength[features]
    importance = _importance(targets, used, wide, options)
    onehot = np.eye(wide)[targets]
    texts = len(targets)
    sizes = (width * wide, slots * wide, wide)
    penalty = np.repeat((options.dense_penalty, options.gram_penalty, 0.0), sizes)
    penalty /= max(int(used.sum()), 1)
    dense_rows = None if rows is None else rows.astype(np.float64)

    def objective(place: Floats) -> tuple[float, Floats]:
        dense, gram, bias = _split(place, width, slots, wide)
        scores = np.tile(bias, (texts, 1))
        if dense_rows is not None:
            scores += dense_rows @ dense
        for label in range(wide):
            scores[:, label] += np.bincount(
                owners, weights=gram[features, label] * values, minlength=texts
            )
        chances = softmax(scores, 1.0)
        loss = -float(importance @ np.log(np.maximum(chances[np.arange(texts), targets], 1e-12)))
        error = (chances - onehot) * importance[:, None]
        slope = [
            np.zeros((0, wide)) if dense_rows is None else dense_rows.T @ error,
            np.stack(
                [
                    np.bincount(features, weights=error[owners, k] * values, minlength=slots)
                    for k in range(wide)
                ],
                axis=1,
            ),
            error.sum(axis=0),
        ]
        gradient = np.concatenate([part.reshape(-1) for part in slope]) + penalty * place
        return loss + 0.5 * float(penalty @ (place * place)), gradient

    best = _lowest(objective, np.zeros((width + slots + 1) * wide), rounds=options.rounds)
    dense, gram, bias = _split(best, width, slots, wide)
    return Head(
        dense=dense.astype(np.float32),
        grams=(gram * strength[:, None] * options.gram_gain).astype(np.float32),
        bias=bias.astype(np.float32),
        temperature=1.0,
    )


def _lowest(
    objective: Callable[[Floats], tuple[float, Floats]], start: Floats, *, rounds: int
) -> Floats:
    """Return the place of the least value of ``objective`` (value and gradient) by L-BFGS."""
    with needs_extra("lab"):
        from scipy.optimize import minimize
    limits = {"maxiter": rounds, "ftol": _ENOUGH}
    best: Floats = minimize(objective, start, jac=True, method="L-BFGS-B", options=limits).x
    return best


def _importance(
    targets: NDArray[np.int64], used: NDArray[np.bool_], wide: int, options: FitOptions
) -> Floats:
    """Return how much each text counts, rare labels more; the sum is 1."""
    counts = np.bincount(targets[used], minlength=wide)
    weight = (counts.sum() / (wide * np.maximum(counts, 1))) ** options.balance
    importance = np.where(used, weight[targets], 0.0)
    share: Floats = importance / importance.sum()
    return share


def _strength(
    owners: NDArray[np.int64],
    features: NDArray[np.int64],
    targets: NDArray[np.int64],
    wide: int,
    options: FitOptions,
) -> Floats:
    """Return how much each n-gram tells the labels apart, about 1 on the average occurrence."""
    slots = 2**options.bits
    if not options.telling or not len(features):
        return np.ones(slots)
    chosen = targets[owners]
    counts = np.stack(
        [np.bincount(features[chosen == k], minlength=slots) for k in range(wide)], axis=1
    )
    shares = (counts + 1.0) / (counts.sum(axis=0) + slots)
    ratios = np.log(shares) - np.log(shares.mean(axis=1, keepdims=True))
    strength: Floats = np.abs(ratios).max(axis=1) ** options.telling
    return strength / max(float(np.sqrt((strength[features] ** 2).mean())), 1e-9)


def _split(place: Floats, width: int, slots: int, wide: int) -> tuple[Floats, Floats, Floats]:
    first, second = width * wide, (width + slots) * wide
    return (
        place[:first].reshape(width, wide),
        place[first:second].reshape(slots, wide),
        place[second:],
    )

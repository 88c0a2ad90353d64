"""Trains the light classifier: regularised multinomial logistic regression, then its temperature.

What is drawn at random is drawn by a hash of the group (a restaurant, a film), so that texts of one
group never stand on both sides and a second training gives the same weights. numpy only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import InvalidInput
from ondol.core.types import FloatMatrix
from ondol.services.tasks.classifier import Classifier, Floats, Head, logits, softmax
from ondol.services.tasks.lbfgs import minimised
from ondol.text.char_ngrams import Grams, hashed_grams

_FOLDS = 5
_LEAST = 8


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


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled texts with their vectors; ``groups`` name what must stay together."""

    texts: Sequence[str]
    vectors: FloatMatrix
    labels: Sequence[str]
    groups: Sequence[str]

    def __post_init__(self) -> None:
        counts = {len(self.texts), len(self.vectors), len(self.labels), len(self.groups)}
        if len(counts) != 1:
            raise InvalidInput(
                f"texts, vectors, labels and groups differ in number: {sorted(counts)}",
                hint="give one of each for every example",
            )

    def chosen(self, mask: NDArray[np.bool_]) -> Examples:
        """Return the examples where ``mask`` is true."""
        places = [int(i) for i in np.flatnonzero(mask)]
        return Examples(
            texts=[self.texts[i] for i in places],
            vectors=self.vectors[places],
            labels=[self.labels[i] for i in places],
            groups=[self.groups[i] for i in places],
        )


def fold_of(group: str, *, folds: int = _FOLDS) -> int:
    """Return the fold of ``group``, the same in every run and on every machine."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") % folds


def fit(
    examples: Examples,
    *,
    labels: Sequence[str],
    embedder: str,
    options: FitOptions | None = None,
    about: str = "",
) -> Classifier:
    """Return a classifier of ``labels`` trained on ``examples``; deterministic.

    Temperatures are fitted on the predictions of models that did not see the group. Raises
    ``InvalidInput`` where a label has fewer than eight examples.
    """
    options = options or FitOptions()
    targets = _targets(examples.labels, labels)
    mean = examples.vectors.mean(axis=0)
    scale = 1.0 / np.maximum(examples.vectors.std(axis=0), np.float32(1e-6))
    rows = ((examples.vectors - mean) * scale).astype(np.float32) / np.sqrt(len(mean))
    grams = hashed_grams(examples.texts, bits=options.bits, orders=options.orders)
    folds = np.array([fold_of(group) for group in examples.groups])
    full = _head(rows, grams, targets, folds, len(labels), options)
    words = _head(None, grams, targets, folds, len(labels), options)
    return Classifier(
        labels=tuple(labels),
        embedder=embedder,
        mean=mean.astype(np.float32),
        scale=(scale / np.sqrt(len(mean))).astype(np.float32),
        full=full,
        words=words,
        bits=options.bits,
        orders=options.orders,
        about=about,
    )


def _targets(given: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    for label in labels:
        count = sum(1 for one in given if one == label)
        if count < _LEAST:
            raise InvalidInput(
                f"there are {count} examples of {label!r}, training needs {_LEAST}",
                hint="label more, or leave the label out",
                param="labels",
            )
    place = {label: at for at, label in enumerate(labels)}
    unknown = sorted({label for label in given if label not in place})
    if unknown:
        raise InvalidInput(
            f"examples are labelled {unknown[:5]}, the labels are {list(labels)}",
            hint="use the labels of the task",
            param="labels",
        )
    return np.array([place[label] for label in given], dtype=np.int64)


def _head(
    rows: FloatMatrix | None,
    grams: Grams,
    targets: NDArray[np.int64],
    folds: NDArray[np.int64],
    wide: int,
    options: FitOptions,
) -> Head:
    """Return weights from all examples, with the temperature that suits unseen groups."""
    unseen: list[Floats] = []
    truth: list[NDArray[np.int64]] = []
    for fold in range(2):  # two of the five: a temperature is one number
        held = folds == fold
        if not held.any() or held.all() or len(np.unique(targets[~held])) < wide:
            continue
        part = _trained(rows, grams, targets, ~held, wide, options)
        unseen.append(logits(part, rows, grams)[held])
        truth.append(targets[held])
    temperature = _temperature(np.concatenate(unseen), np.concatenate(truth)) if unseen else 1.0
    everything = np.ones(len(targets), dtype=bool)
    head = _trained(rows, grams, targets, everything, wide, options)
    return Head(head.dense, head.grams, head.bias, temperature)


def _trained(
    rows: FloatMatrix | None,
    grams: Grams,
    targets: NDArray[np.int64],
    used: NDArray[np.bool_],
    wide: int,
    options: FitOptions,
) -> Head:
    width = 0 if rows is None else rows.shape[1]
    slots = 2**options.bits
    keep = used[grams.rows]
    owners, features = grams.rows[keep], grams.features[keep]
    gain = grams.scale * options.gram_gain
    strength = _strength(owners, features, targets, wide, options)
    values = gain[owners] * strength[features]
    counts = np.bincount(targets[used], minlength=wide)
    weight = (counts.sum() / (wide * np.maximum(counts, 1))) ** options.balance
    importance = np.where(used, weight[targets], 0.0)
    importance /= importance.sum()
    onehot = np.eye(wide)[targets]
    texts = len(targets)
    penalty = np.concatenate(
        [
            np.full(width * wide, options.dense_penalty),
            np.full(slots * wide, options.gram_penalty),
            np.zeros(wide),
        ]
    ) / max(int(used.sum()), 1)
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

    best = minimised(objective, np.zeros(width * wide + slots * wide + wide), rounds=options.rounds)
    dense, gram, bias = _split(best, width, slots, wide)
    return Head(
        dense=dense.astype(np.float32),
        grams=(gram * strength[:, None] * options.gram_gain).astype(np.float32),
        bias=bias.astype(np.float32),
        temperature=1.0,
    )


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


def _temperature(scores: Floats, targets: NDArray[np.int64]) -> float:
    """Return the temperature under which ``scores`` are least surprised by ``targets``."""
    choices = np.exp(np.linspace(np.log(0.25), np.log(4.0), 65))
    at = np.arange(len(targets))
    losses = [
        -float(np.log(np.maximum(softmax(scores, float(t))[at, targets], 1e-12)).mean())
        for t in choices
    ]
    return float(choices[int(np.argmin(losses))])

"""Trains the light classifier: its two heads, whether they lean on an earlier one, their temperatures.

What is drawn at random is drawn by a hash of the group (a restaurant, a film), so that texts of one
group never stand on both sides and a second training gives the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import InvalidInput
from ondol.core.types import FloatMatrix
from ondol.services.tasks.classifier import Classifier, Floats, Head, logits, softmax
from ondol.services.tasks.classifier_start import Start, leaning, marks_of, start_of, usable
from ondol.services.tasks.logistic import FitOptions, trained
from ondol.text.char_ngrams import Grams, hashed_grams

_FOLDS = 5
_LEAST = 8


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


@dataclass(frozen=True, slots=True)
class _Given:
    """What both heads are trained on; ``rows`` are standardised by ``mean`` and ``scale``."""

    rows: FloatMatrix
    grams: Grams
    targets: NDArray[np.int64]
    folds: NDArray[np.int64]
    wide: int
    mean: FloatMatrix
    scale: FloatMatrix


def fit(
    examples: Examples,
    *,
    labels: Sequence[str],
    embedder: str,
    options: FitOptions | None = None,
    about: str = "",
    start: Classifier | None = None,
) -> Classifier:
    """Return a classifier of ``labels`` trained on ``examples``; deterministic.

    It leans on ``start``, a classifier of other texts, where groups it did not see are then judged
    better. Temperatures are fitted on the predictions of models that did not see the group. Raises
    ``InvalidInput`` where a label has fewer than eight examples.
    """
    options = options or FitOptions()
    targets = _targets(examples.labels, labels)
    mean = examples.vectors.mean(axis=0).astype(np.float32)
    spread = np.maximum(examples.vectors.std(axis=0), np.float32(1e-6))
    scale = (1.0 / (spread * np.sqrt(len(mean)))).astype(np.float32)
    earlier = usable(
        start, labels=labels, embedder=embedder, dimensions=len(mean), texts=examples.texts
    )
    if earlier is not None:
        options = replace(options, bits=earlier.bits, orders=earlier.orders)
    grams = hashed_grams(examples.texts, bits=options.bits, orders=options.orders)
    given = _Given(
        rows=((examples.vectors - mean) * scale).astype(np.float32),
        grams=grams,
        targets=targets,
        folds=np.array([fold_of(group) for group in examples.groups]),
        wide=len(labels),
        mean=mean,
        scale=scale,
    )
    first = second = None
    if earlier is not None:
        first = start_of(earlier, earlier.full, examples.vectors, grams)
        second = start_of(earlier, earlier.words, None, grams)
    return Classifier(
        labels=tuple(labels),
        embedder=embedder,
        mean=mean,
        scale=scale,
        full=_better(given, given.rows, options, first),
        words=_better(given, given.rows[:, :0], options, second),
        bits=options.bits,
        orders=options.orders,
        about=about,
        seen=np.unique(marks_of(examples.texts)),
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


def _better(given: _Given, rows: FloatMatrix, options: FitOptions, start: Start | None) -> Head:
    """Return the head on ``rows``, leaning on ``start`` where that surprises unseen groups less."""
    everything = np.ones(len(given.targets), dtype=bool)
    folds = 2 if start is None else _FOLDS  # a temperature is one number; a choice needs more
    temperature, alone = _unseen(given, rows, options, folds)
    if start is not None:
        wider = np.concatenate([rows, start.columns], axis=1)
        cooler, together = _unseen(given, wider, leaning(options), folds)
        if together < alone:
            head = _trained(given, wider, everything, leaning(options))
            return start.folded(replace(head, temperature=cooler), given.mean, given.scale)
    return replace(_trained(given, rows, everything, options), temperature=temperature)


def _unseen(
    given: _Given, rows: FloatMatrix, options: FitOptions, folds: int
) -> tuple[float, float]:
    """Return the temperature that suits groups held out, and the loss under it, labels alike."""
    scores: list[Floats] = []
    truth: list[NDArray[np.int64]] = []
    for fold in range(folds):
        held = given.folds == fold
        if not held.any() or len(np.unique(given.targets[~held])) < given.wide:
            continue
        part = _trained(given, rows, ~held, options)
        scores.append(logits(part, rows, given.grams)[held])
        truth.append(given.targets[held])
    if not scores:
        return 1.0, 0.0
    every, targets = np.concatenate(scores), np.concatenate(truth)
    temperature = _temperature(every, targets)
    losses = _losses(every, targets, temperature)
    shares = [losses[targets == label].mean() for label in np.unique(targets)]
    return temperature, float(np.mean(shares))


def _trained(
    given: _Given, rows: FloatMatrix, used: NDArray[np.bool_], options: FitOptions
) -> Head:
    return trained(rows, given.grams, given.targets, used, given.wide, options)


def _temperature(scores: Floats, targets: NDArray[np.int64]) -> float:
    """Return the temperature under which ``scores`` are least surprised by ``targets``."""
    choices = np.exp(np.linspace(np.log(0.25), np.log(4.0), 65))
    means = [_losses(scores, targets, float(t)).mean() for t in choices]
    return float(choices[int(np.argmin(means))])


def _losses(scores: Floats, targets: NDArray[np.int64], temperature: float) -> Floats:
    chances = softmax(scores, temperature)[np.arange(len(targets)), targets]
    losses: Floats = -np.log(np.maximum(chances, 1e-12))
    return losses

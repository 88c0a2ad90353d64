"""Trains a pack's classifier on labelled texts of the user's own, and says how good it is.

Held-out groups judge it before all examples train what is kept; it then takes the place of the shipped
one of that name and language in this home. The shipped one is leaned on where that helps.

Trains the light classifier: its two heads, whether they lean on an earlier one, their temperatures.

What is drawn at random is drawn by a hash of the group (a restaurant, a film), so that texts of one
group never stand on both sides and a second training gives the same weights.

What an earlier classifier already says, as columns that a new one may lean on.

A few labels of one's own say little about most words; a classifier of other texts says something about
all of them. Its scores stand beside the vectors in training and are folded into the new weights after
it, so that prediction costs the same and the file stands alone. Never used where it saw the examples.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import InvalidInput
from ondol.core.types import FloatMatrix
from ondol.language.char_ngrams import Grams, hashed_grams
from ondol.tasks.classifier import Classifier, Floats, Head, load_classifier, logits, softmax
from ondol.tasks.declaration import Task
from ondol.tasks.logistic import FitOptions, trained
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.classify import ClassifyParameters

_MOST_SEEN = 0.1  # short texts ("good") occur everywhere; one example in ten does not by chance
_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Start:
    """The scores of an earlier head: ``columns`` (texts, labels) are centred, times ``gain``."""

    columns: FloatMatrix
    gain: float
    head: Head
    mean: FloatMatrix
    scale: FloatMatrix

    def folded(self, head: Head, mean: FloatMatrix, scale: FloatMatrix) -> Head:
        """Return ``head``, trained with the columns last, as one that needs no columns.

        ``mean`` and ``scale`` standardise the vectors that ``head`` reads.
        """
        wide = len(head.bias)
        centred = np.eye(wide) - 1.0 / wide
        mix = self.gain * centred @ head.dense[-wide:].astype(np.float64)
        dense = head.dense[:-wide].astype(np.float64)
        bias = head.bias + self.head.bias @ mix
        if len(self.head.dense):
            raw = self.scale.astype(np.float64)[:, None] * self.head.dense @ mix
            dense = dense + raw / scale[:, None]
            bias = bias + (mean - self.mean).astype(np.float64) @ raw
        return Head(
            dense=dense.astype(np.float32),
            grams=(head.grams + self.head.grams @ mix).astype(np.float32),
            bias=bias.astype(np.float32),
            temperature=head.temperature,
        )


def usable(
    earlier: Classifier | None,
    *,
    labels: Sequence[str],
    embedder: str,
    dimensions: int,
    texts: Sequence[str],
) -> Classifier | None:
    """Return ``earlier``, or ``None`` where it is no help; the order of its labels does not matter.

    It is none with other labels or another embedder, and where it was trained on these texts: then its
    scores would look better than they are. One that does not say what it saw counts as having seen all.
    """
    if earlier is None or sorted(earlier.labels) != sorted(labels) or not len(earlier.seen):
        return None
    known = np.isin(marks_of(texts), earlier.seen).mean() if texts else 1.0
    if not earlier.fits(embedder, dimensions) or known > _MOST_SEEN:
        return None
    return earlier


def start_of(earlier: Classifier, head: Head, vectors: FloatMatrix | None, grams: Grams) -> Start:
    """Return what ``head`` of ``earlier`` says about the texts of ``grams`` with their ``vectors``."""
    rows = None if vectors is None else (vectors - earlier.mean) * earlier.scale
    scores: Floats = logits(head, rows, grams)
    scores -= scores.mean(axis=1, keepdims=True)
    gain = _SPREAD / max(float(scores.std()), 1e-9)
    columns = (scores * gain).astype(np.float32)
    return Start(columns, gain, head, earlier.mean, earlier.scale)


def leaning(options: FitOptions) -> FitOptions:
    """Return options for training from a start: what departs from it must earn more (docs/log.md)."""
    return replace(
        options,
        dense_penalty=2.0 * options.dense_penalty,
        gram_penalty=2.25 * options.gram_penalty,
    )


def marks_of(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return 32 bits of each text's hash: enough to tell whether it was seen, not what it said."""
    digests = b"".join(
        hashlib.sha256(text.strip().encode("utf-8", "replace")).digest()[:4] for text in texts
    )
    return np.frombuffer(digests, dtype="<u4").astype(np.uint32)


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


_HELD = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the classifier lies, and what it did on groups it had not seen."""

    path: Path
    labels: tuple[str, ...]
    examples: int
    held_out: int
    accuracy: float
    macro_f1: float


async def train(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    *,
    language: str,
    bench: StepContext,
    about: str = "",
) -> Trained:
    """Train on ``rows`` of ``text``, ``label`` and perhaps ``group``; raises ``InvalidInput``."""
    name = _classifier_of(task)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("text"), str) or not isinstance(row.get("label"), str):
            raise InvalidInput(
                f"line {number} has no text and label", hint='write {"text": …, "label": …}'
            )
    texts = [str(row["text"]) for row in rows]
    vectors, _ = await bench.vectors(texts)
    examples = Examples(
        texts=texts,
        vectors=vectors,
        labels=[str(row["label"]) for row in rows],
        groups=[str(row.get("group", text)) for row, text in zip(rows, texts, strict=True)],
    )
    labels = tuple(sorted(set(examples.labels)))
    model = bench.services.embedding.model
    held = np.array([fold_of(group) == _HELD for group in examples.groups], dtype=bool)
    shipped = await asyncio.to_thread(_shipped, task, name.replace("{language}", language))
    judged = await asyncio.to_thread(_judged, examples, held, labels, model, shipped)
    made = await asyncio.to_thread(
        fit,
        examples,
        labels=labels,
        embedder=model,
        options=options_for(len(texts)),
        about=about,
        start=shipped,
    )
    path = bench.own_classifier(task.pack, name.replace("{language}", language))
    await asyncio.to_thread(made.save, path)
    bench.forget_classifiers()
    return Trained(path, labels, len(texts), int(held.sum()), *judged)


def scores_of(classifier: Classifier, examples: Examples) -> tuple[float, float]:
    """Return accuracy and macro-F1 of ``classifier`` on ``examples``."""
    chances = classifier.predict(examples.texts, examples.vectors)
    return scores(examples.labels, [classifier.labels[int(i)] for i in chances.argmax(axis=1)])


def scores(truth: Sequence[str], found: Sequence[str]) -> tuple[float, float]:
    """Return accuracy and macro-F1 of the labels ``found``."""
    pairs = list(zip(truth, found, strict=True))
    f1 = []
    for label in sorted(set(truth)):
        both = sum(1 for truth, said in pairs if truth == said == label)
        either = sum((truth == label) + (said == label) for truth, said in pairs)
        f1.append(2 * both / either if either else 0.0)
    return sum(truth == said for truth, said in pairs) / len(pairs), sum(f1) / len(f1)


def options_for(examples: int) -> FitOptions:
    """Return how to train on so many: few examples fill a smaller table of n-grams."""
    bits = min(FitOptions().bits, max(10, math.ceil(math.log2(40 * max(examples, 1)))))
    return FitOptions(bits=bits)


def _shipped(task: Task, relative: str) -> Classifier | None:
    """Return the pack's own classifier, which training may lean on; never one of the user's."""
    path = task.folder / relative
    return load_classifier(path) if path.is_file() else None


def _judged(
    examples: Examples, held: Any, labels: Sequence[str], model: str, start: Classifier | None
) -> tuple[float, float]:
    if not held.any() or held.all():
        return float("nan"), float("nan")
    options = options_for(int((~held).sum()))
    seen = examples.chosen(~held)
    made = fit(seen, labels=labels, embedder=model, options=options, start=start)
    return scores_of(made, examples.chosen(held))


def _classifier_of(task: Task) -> str:
    for step in task.steps:
        if isinstance(step.parameters, ClassifyParameters):
            return step.parameters.classifier
    raise InvalidInput(
        f"task {task.name} has no step classify, there is nothing to train",
        hint="name a task that classifies, such as reviews.sentiment",
        param="task",
    )

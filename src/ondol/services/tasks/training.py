"""Trains a pack's classifier on labelled texts of the user's own, and says how good it is.

Held-out groups judge it before all examples train what is kept; it then takes the place of the shipped
one of that name and language in this home. The shipped one is leaned on where that helps.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondol.core.errors import InvalidInput
from ondol.services.tasks.classifier import Classifier, load_classifier
from ondol.services.tasks.classifier_fit import Examples, fit, fold_of
from ondol.services.tasks.declaration import Task
from ondol.services.tasks.logistic import FitOptions
from ondol.services.tasks.steps.classify import ClassifyParameters
from ondol.services.tasks.workbench import Workbench

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
    bench: Workbench,
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

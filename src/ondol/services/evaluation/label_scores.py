"""How often one label out of a few was right: accuracy and macro-F1. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Shares in 0…1 over ``count`` labelled texts."""

    count: int
    accuracy: float
    macro_f1: float


def label_scores(pairs: Sequence[tuple[str, str]]) -> LabelScores | None:
    """Return the scores of (truth, said) pairs; ``None`` where there are none.

    Macro-F1 is the plain mean of F1 over the labels that truly occur (Sokolova & Lapalme 2009): one
    that is said and never true costs the others their precision or recall.
    """
    if not pairs:
        return None
    scores = []
    for label in sorted({truth for truth, _ in pairs}):
        both = sum(truth == said == label for truth, said in pairs)
        either = sum((truth == label) + (said == label) for truth, said in pairs)
        scores.append(2 * both / either)
    right = sum(truth == said for truth, said in pairs)
    return LabelScores(len(pairs), right / len(pairs), sum(scores) / len(scores))


def knowable(pairs: Sequence[tuple[str, str]], labels: Collection[str]) -> list[tuple[str, str]]:
    """Return the pairs whose truth is a label that can be said at all."""
    return [pair for pair in pairs if pair[0] in labels]

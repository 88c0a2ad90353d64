"""What an encoder learns from, as token ids: queries, passages, and which belong together.

Pure data and the order in which it is gone through, which the seed alone decides; knows no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ondol.core.types import Encoded


@dataclass(frozen=True, slots=True)
class Example:
    """A query, its right passages, and passages that are near it and wrong.

    Passages are numbered as in their ``TrainingSet``. ``related`` are others that must not count as
    wrong, such as further passages of a right document.
    """

    query: Encoded
    positives: tuple[int, ...]
    negatives: tuple[int, ...] = ()
    related: frozenset[int] = frozenset()

    @property
    def spared(self) -> frozenset[int]:
        """All passages that are no negatives of this query."""
        return self.related | frozenset(self.positives)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """All passages and the examples over them."""

    passages: Sequence[Encoded]
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's examples, the right passage taken for each, and every passage that is compared."""

    examples: tuple[Example, ...]
    targets: tuple[int, ...]
    passages: tuple[int, ...]


def batches_per_epoch(count: int, *, batch: int) -> int:
    """Return how many steps it takes to see ``count`` examples once; a small rest is left out."""
    return max(1, count // batch)


def batch_at(
    examples: Sequence[Example], step: int, *, size: int, negatives: int, seed: int
) -> Batch:
    """Return the batch of ``step``, the same for the same seed whatever ran before.

    Each epoch is a new permutation; a query with several right passages shows another each time.
    """
    per_epoch = batches_per_epoch(len(examples), batch=size)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(len(examples))
    rng = np.random.default_rng([seed, epoch, place])
    chosen = [examples[i] for i in order[place * size : (place + 1) * size]]
    targets = [int(rng.choice(one.positives)) for one in chosen]
    passages = dict.fromkeys(targets)
    for one in chosen:
        drawn = min(negatives, len(one.negatives))
        passages |= dict.fromkeys(
            int(i) for i in rng.choice(one.negatives, size=drawn, replace=False)
        )
    return Batch(tuple(chosen), tuple(targets), tuple(passages))


def parts_of(lengths: Sequence[int], *, tokens: int) -> list[list[int]]:
    """Return groups of indices, of like length, each at most ``tokens`` when padded (or one item)."""
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        longest = lengths[index]
        if parts and (len(parts[-1]) + 1) * longest <= tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts

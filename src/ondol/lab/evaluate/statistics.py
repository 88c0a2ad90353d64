"""The figures of rankings and labels, and how sure a mean is. Pure, numpy only.

Rankings: nDCG and MRR after Järvelin & Kekäläinen (2002) and TREC practice. Sureness: the percentile
bootstrap, seeded so that equal scores give equal intervals (Efron & Tibshirani, "An Introduction to
the Bootstrap", 1993, ch. 13), paired over questions as Smucker, Allan & Carterette, "A Comparison of
Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Document = TypeVar("Document", bound=Hashable)

SEED = 20240607
RESAMPLES = 2000
LEVEL = 0.95
_CELLS = 2_000_000  # resampled indices held at once


def ndcg(ranked: Sequence[Document], relevant: Mapping[Document, float], *, k: int = 10) -> float:
    """Return nDCG@k with gains as judged (linear); 0 where nothing is relevant.

    ``relevant`` maps what may be ranked, an id or an index, to its gain.
    """
    dcg = sum(relevant.get(d, 0.0) / math.log2(i + 2) for i, d in enumerate(ranked[:k]))
    ideal = sorted(relevant.values(), reverse=True)[:k]
    best = sum(gain / math.log2(i + 2) for i, gain in enumerate(ideal))
    return dcg / best if best else 0.0


def recall(ranked: Sequence[Document], relevant: Mapping[Document, float], *, k: int = 10) -> float:
    """Return the share of relevant documents among the first ``k``."""
    wanted = {d for d, gain in relevant.items() if gain > 0}
    return len(wanted & set(ranked[:k])) / len(wanted) if wanted else 0.0


def reciprocal_rank(
    ranked: Sequence[Document], relevant: Mapping[Document, float], *, k: int = 10
) -> float:
    """Return 1 / rank of the first relevant document among the first ``k``, or 0."""
    return next((1 / (i + 1) for i, d in enumerate(ranked[:k]) if relevant.get(d, 0) > 0), 0.0)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the ``share`` (0…1) quantile by linear interpolation; 0 for no values."""
    return float(np.quantile(values, share)) if len(values) else 0.0


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
    means = _resampled_means(np.asarray(values, dtype=np.float64), seed)
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
    means = _resampled_means(gained, seed)
    low, high = _bounds(means)
    # A tie counts half: two equal settings are better in half of the resamples.
    share = float(np.mean(means > 0) + np.mean(means == 0) / 2)
    return Difference(float(gained.mean()), low, high, share)


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
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


@dataclass(frozen=True, slots=True)
class SetScores:
    """Shares in 0…1; ``None`` where nothing was found (precision) or wanted (recall)."""

    precision: float | None
    recall: float | None
    f1: float


def set_scores(
    pairs: Iterable[tuple[AbstractSet[Hashable], AbstractSet[Hashable]]],
) -> SetScores | None:
    """Return micro-averaged scores of (wanted, found) pairs; ``None`` where there are no pairs.

    Micro: counted over all pairs together, so that a pair with many members weighs more (van
    Rijsbergen 1979 for F). Two empty sets agree: F1 is 1 where nothing was wanted and nothing found.
    """
    wanted = found = right = count = 0
    for one, other in pairs:
        count += 1
        wanted += len(one)
        found += len(other)
        right += len(one & other)
    if not count:
        return None
    f1 = 2 * right / (wanted + found) if wanted + found else 1.0
    return SetScores(right / found if found else None, right / wanted if wanted else None, f1)


def told_scores(name: str, scores: SetScores | None) -> dict[str, float | None]:
    """Return scores as figures called ``name``; none where there are none."""
    if scores is None:
        return {}
    return {
        f"{name}_recall": scores.recall,
        f"{name}_precision": scores.precision,
        f"{name}_f1": scores.f1,
    }

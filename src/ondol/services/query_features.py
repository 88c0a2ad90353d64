"""What can be told about a query before its legs are fused, and a weight learned from it.

Pure. The features are of the query's wording and of how sure and how agreed its two legs are; each
costs a pass over a hundred scores at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ondol.store.fusion import standard_deviation
from ondol.text.language import detect
from ondol.text.terms import find_terms

NAMES = (
    *("length", "terms", "korean", "dense_top", "dense_gap"),
    *("lexical_top", "lexical_gap", "agree"),
)
_AGREE = 10
_MOST = 2000  # characters of a query that are looked at
LEAST, GREATEST = 0.05, 0.95
"""Neither leg is ever left out on the word of a fit."""

Ranking = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class QueryWeight:
    """The vector leg's share as a logistic function of the features, each centred and scaled.

    ``weight = middle + swing × (2 p − 1)``, kept within 0.05…0.95, where ``p`` is the estimated chance
    that vectors do better than keywords.
    """

    middle: float
    swing: float
    bias: float
    coefficients: tuple[float, ...]
    centres: tuple[float, ...]
    scales: tuple[float, ...]

    def weight(self, features: Sequence[float]) -> float:
        """Return the weight for ``features``; the middle where their number is another."""
        if not len(features) == len(self.coefficients) == len(self.centres) == len(self.scales):
            return self.middle
        rows = zip(features, self.centres, self.scales, self.coefficients, strict=True)
        z = self.bias + sum(b * (x - c) / (s or 1.0) for x, c, s, b in rows)
        chance = 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, z))))
        return max(LEAST, min(GREATEST, self.middle + self.swing * (2 * chance - 1)))


def features_of(query: str, legs: Mapping[str, Ranking]) -> tuple[float, ...]:
    """Return the features in the order of ``NAMES``, all finite."""
    asked = query[:_MOST]
    words = len(asked.split())
    terms = sum(1 for _ in find_terms(asked))
    dense, lexical = legs.get("dense", ()), legs.get("lexical", ())
    first = {chunk for chunk, _ in dense[:_AGREE]}
    return (
        math.log1p(words),
        terms / max(words, 1),
        float(detect(asked) == "ko"),
        *_shape(dense),
        *_shape(lexical),
        len(first & {chunk for chunk, _ in lexical[:_AGREE]}) / _AGREE,
    )


def _shape(ranking: Ranking) -> tuple[float, float]:
    """Return how far the first stands above the mean and above the tenth, in standard deviations."""
    scores = [score for _, score in ranking]
    spread = standard_deviation(scores)
    if not spread > 0:
        return 0.0, 0.0
    tenth = scores[min(len(scores), _AGREE) - 1]
    return (scores[0] - math.fsum(scores) / len(scores)) / spread, (scores[0] - tenth) / spread

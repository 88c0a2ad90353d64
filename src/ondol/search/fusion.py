"""One ranking out of several: from ranks alone, or from standardised scores.

Pure. Sources: Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
individual Rank Learning Methods", SIGIR 2009 (k = 60 there); Bruch, Gai, Ingber, "An Analysis of
Fusion Functions for Hybrid Retrieval", TOIS 2023 (a convex combination of normalised scores beats
rank fusion).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ondol.core.errors import InvalidInput


def reciprocal_rank_fusion(
    legs: Mapping[str, Sequence[tuple[int, float]]],
    *,
    k: int = 60,
    weights: Mapping[str, float] | None = None,
) -> list[tuple[int, float]]:
    """Return (id, Σ weight / (k + rank)) over the legs, best first, ties by id; ranks start at 1.

    A leg is a ranking, best first; only the first place of an id in a leg counts. A leg without a
    weight weighs 1. Raises ``InvalidInput`` for ``k`` < 1, a negative weight, or a weight that
    names no leg.
    """
    given = dict(weights or {})
    _validate(legs, k=k, weights=given)
    scores: dict[int, float] = {}
    for name in sorted(legs):  # a fixed order, so that the sums round alike every time
        weight = given.get(name, 1.0)
        seen: set[int] = set()
        for item, _ in legs[name]:
            if item not in seen:
                seen.add(item)
                scores[item] = scores.get(item, 0.0) + weight / (k + len(seen))
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def score_fusion(
    legs: Mapping[str, Sequence[tuple[int, float]]],
    *,
    weights: Mapping[str, float] | None = None,
) -> list[tuple[int, float]]:
    """Return (id, Σ weight × standard score) over the legs, best first, ties by id.

    In each leg a score counts by how many standard deviations it stands above that leg's lowest,
    so what a leg did not find counts like its last. Raises ``InvalidInput`` as above.
    """
    given = dict(weights or {})
    _validate(legs, k=1, weights=given)
    scores: dict[int, float] = {}
    for name in sorted(legs):
        best: dict[int, float] = {}
        for item, score in legs[name]:
            best[item] = max(score, best.get(item, score))
        if not best:
            continue
        lowest = min(best.values())
        spread = standard_deviation(list(best.values())) or 1.0
        for item, score in best.items():
            weighed = given.get(name, 1.0) * (score - lowest) / spread
            scores[item] = scores.get(item, 0.0) + weighed
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def standard_deviation(values: Sequence[float]) -> float:
    """Return the population standard deviation; 0 for none. A tenth of the time of ``statistics``'."""
    if not values:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _validate(
    legs: Mapping[str, Sequence[tuple[int, float]]], *, k: int, weights: Mapping[str, float]
) -> None:
    if k < 1:
        raise InvalidInput(f"k is {k}; it must be at least 1", hint="60 is usual", param="k")
    for name, weight in weights.items():
        if name not in legs:
            raise InvalidInput(
                f"weight for {name!r}, which is no leg",
                hint=f"legs: {', '.join(sorted(legs)) or 'none'}",
                param="weights",
            )
        if not weight >= 0:
            raise InvalidInput(
                f"weight of {name!r} is {weight}; it must be 0 or more",
                hint="use 0 to ignore a leg",
                param="weights",
            )

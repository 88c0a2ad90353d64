"""How well found sets agree with wanted ones: precision, recall and F1 over all of them. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


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

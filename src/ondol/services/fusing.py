"""Joins the legs of a search into one ranking, under the weight that holds for the query.

Pure. A weight measured for the collection goes before the setting. Where a question was searched in
several wordings, their rankings are joined too.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondol.core.setting_sections import RetrievalSettings
from ondol.services.calibration import Calibration
from ondol.services.lookups import Ranking
from ondol.services.query_features import features_of
from ondol.services.search_legs import Found, Legs
from ondol.store.fusion import reciprocal_rank_fusion, score_fusion

AS_ASKED = 0.3
"""Share of the wording that was asked where there is another; see ``benchmarks/follow_ups.py``."""


@dataclass(frozen=True, slots=True)
class Fused:
    """One ranking, best first; ``dense_weight`` is the vector leg's share, ``None`` of one leg.

    Of several wordings it is the last one's.
    """

    ranking: Ranking
    dense_weight: float | None = None


def fuse(found: Found, *, settings: RetrievalSettings, calibration: Calibration) -> Fused:
    """Return what was found as one ranking; of one leg and one wording it is as it came."""
    if len(found.wordings) == 1 and len(found.wordings[0].rankings) == 1:
        return Fused(next(iter(found.wordings[0].rankings.values())))
    fused = [_joined(legs, settings, calibration) for legs in found.wordings]
    if len(fused) == 1:
        return fused[0]
    others = (1 - AS_ASKED) / (len(fused) - 1)
    scores: dict[int, float] = {}
    for at, one in enumerate(fused):
        for chunk, score in one.ranking:
            scores[chunk] = scores.get(chunk, 0.0) + (others if at else AS_ASKED) * score
    ranking = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    return Fused(ranking, fused[-1].dense_weight)


def _joined(legs: Legs, settings: RetrievalSettings, calibration: Calibration) -> Fused:
    """Return the legs of one wording as one ranking, of scores that wordings share."""
    weight: float | None = None
    weights = dict.fromkeys(legs.rankings, 1.0)
    if len(legs.rankings) == 2:
        weight = weight_of(legs, settings=settings, calibration=calibration)
        weights = {"dense": weight, "lexical": 1 - weight}
    if settings.fusion == "ranks":
        ranking = reciprocal_rank_fusion(legs.rankings, k=settings.rrf_k, weights=weights)
    else:
        ranking = score_fusion(legs.rankings, weights=weights)
    return Fused(ranking, weight)


def weight_of(legs: Legs, *, settings: RetrievalSettings, calibration: Calibration) -> float:
    """Return the share of the vector leg: measured for this collection, else the setting's.

    Measured weights are of fused scores and hold for nothing else.
    """
    measured = calibration.fusion
    if measured is None or settings.fusion != "scores" or settings.calibration == "off":
        return settings.dense_weight
    if measured.by_query is None:
        return measured.dense
    return measured.by_query.weight(features_of(legs.query, legs.rankings))

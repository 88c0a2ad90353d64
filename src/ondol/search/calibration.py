"""What was measured about searching one collection: the weights of its legs, and its reranker.

Kept as JSON in the collection's record. What another version wrote in another way counts as not
measured, so that a search never fails for it. Learning is ``services.evaluation``'s business.

Whether a query's hits are reranked: as the caller says, else as the settings say, else as measured.

Pure. Under ``auto`` a gain measured on the collection decides for its language; where nothing was
measured, the languages the model is catalogued for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ondol.core.errors import InvalidInput
from ondol.core.settings.sections import RetrievalSettings
from ondol.language.language import detect
from ondol.runtime.encoders.reranking import RerankingService
from ondol.search.query_words import QueryWeight

RECIPE = "1"
"""Changes with how scores are fused or features computed: weights learned before then lapse."""


@dataclass(frozen=True, slots=True)
class FusionWeight:
    """The share of the vector leg: ``dense`` for every query, or by query where that paid.

    ``figures`` is what the held-back half of the questions said, for people to read.
    """

    dense: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    by_query: QueryWeight | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RerankVerdict:
    """Whether ``model`` was measured to help with questions in one language, and how sure that is.

    ``gain`` is the difference in nDCG@10 with reranking, ``low`` and ``high`` its 95 % bounds.
    """

    model: str
    helps: bool
    gain: float
    low: float
    high: float
    questions: int


@dataclass(frozen=True, slots=True)
class CollectionCalibration:
    """All that was measured; ``rerank`` by language. Empty: the settings and the catalogue hold."""

    fusion: FusionWeight | None = None
    rerank: Mapping[str, RerankVerdict] = field(default_factory=dict)
    recipe: str = RECIPE

    @property
    def empty(self) -> bool:
        return self.fusion is None and not self.rerank

    def as_json(self) -> dict[str, Any]:
        """Return what to keep in the record; ``{}`` where nothing was measured."""
        return {} if self.empty else asdict(self)

    def verdict(self, model: str, language: str) -> RerankVerdict | None:
        """Return what was measured of this reranker in ``language``; ``None`` without a measure."""
        found = self.rerank.get(language)
        return found if found is not None and found.model == model else None


_KEPT = TypeAdapter(CollectionCalibration)
NOTHING = CollectionCalibration()


def calibration_of(kept: Mapping[str, Any]) -> CollectionCalibration:
    """Return what a collection's record says; nothing for another recipe or what cannot be read."""
    if not kept or kept.get("recipe") != RECIPE:
        return NOTHING
    try:
        return _KEPT.validate_python(kept)
    except ValidationError:
        return NOTHING


def reranks(
    query: str,
    wanted: bool | None,
    *,
    reranking: RerankingService | None,
    settings: RetrievalSettings,
    calibration: CollectionCalibration,
) -> bool:
    """Return whether to rerank; raises ``InvalidInput`` where that is wanted and impossible."""
    if reranking is None:
        if wanted:
            raise InvalidInput(
                "reranking was asked for, and no reranker is loaded",
                hint="set models.reranker, or leave rerank out",
                param="rerank",
            )
        return False
    if wanted is not None:
        return wanted
    if settings.rerank != "auto":
        return settings.rerank == "on"
    language = detect(query)
    measured = calibration.verdict(reranking.model, language)
    if measured is not None and settings.calibration == "on":
        return measured.helps
    return reranking.knows(language)

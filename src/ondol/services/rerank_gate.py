"""Whether a query's hits are reranked: as the caller says, else as the settings say, else as measured.

Pure. Under ``auto`` a gain measured on the collection decides for its language; where nothing was
measured, the languages the model is catalogued for.
"""

from __future__ import annotations

from ondol.core.errors import InvalidInput
from ondol.core.setting_sections import RetrievalSettings
from ondol.services.calibration import Calibration
from ondol.services.reranking import RerankingService
from ondol.text.language import detect


def reranks(
    query: str,
    wanted: bool | None,
    *,
    reranking: RerankingService | None,
    settings: RetrievalSettings,
    calibration: Calibration,
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

"""Orders documents by their relevance to a query with a cross-encoder.

Owns no model: pairs go to the reranker's lane. Scores are sigmoid of the raw logit, in 0…1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ondol.core.errors import InvalidInput, OndolError
from ondol.core.events import NullObserver, Observer, Timing
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.types import Pair
from ondol.runtime.encoders.encoder_lane import EncoderLane
from ondol.runtime.outcomes import finished


@dataclass(frozen=True, slots=True)
class RerankItem:
    """``index`` into the documents as they came; ``score`` in 0…1; ``logit`` as the model gave it."""

    index: int
    score: float
    logit: float


@dataclass(frozen=True, slots=True)
class RerankResult:
    """Best first; ties keep the order the documents came in."""

    results: list[RerankItem]
    tokens: int
    model: str


class RerankingService:
    """Scores (query, document) pairs."""

    def __init__(
        self,
        lane: EncoderLane,
        *,
        languages: Sequence[str],
        lanes: LanesSettings | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._encoder = lane
        self._lanes = lanes or LanesSettings()
        self._languages = frozenset(languages)
        self._observer = observer or NullObserver()

    @property
    def model(self) -> str:
        return self._encoder.spec.model

    def knows(self, language: str) -> bool:
        """Whether the model was trained on ``language`` (``ko``, ``en``, …)."""
        return language in self._languages

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool = False,
        timing: Timing | None = None,
        lane: str | None = "rerank",
    ) -> RerankResult:
        """Score ``documents`` against ``query``; raises the first item's error (``documents[i]``)."""
        if not documents:
            raise InvalidInput("documents is empty", hint="send at least one", param="documents")
        if top_n is not None and top_n < 1:
            raise InvalidInput(
                f"top_n = {top_n}, it must be 1 or more", hint="leave it out for all", param="top_n"
            )
        timing = timing or Timing()
        with finished(
            self._observer,
            lane=lane,
            model=self.model,
            timing=timing,
            promise_ms=self._lanes.promise_ms(lane),
        ) as note:
            result = await self._encoder.submit(
                [Pair(query, document) for document in documents], truncate=truncate, timing=timing
            )
            note(tokens_in=sum(result.tokens))
        items = []
        for index, value in enumerate(result.values):
            if isinstance(value, OndolError):
                value.param = value.param or f"documents[{index}]"
                raise value
            logit = float(value[0])
            items.append(RerankItem(index=index, score=_sigmoid(logit), logit=logit))
        items.sort(key=lambda item: -item.logit)
        model = result.spec.model if result.spec else self.model
        return RerankResult(results=items[:top_n], tokens=sum(result.tokens), model=model)


def _sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1.0 + power)

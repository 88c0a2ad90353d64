"""Finds the search settings that suit the user's own questions, on a collection as it is.

One half of the questions chooses, step by step: mode, fusion and weight, then the number of
candidates, then reranking. The other half, which had no say, decides whether the choice is better
than what is set. Runs the very service that answers, under other settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ondol.core.setting_sections import RetrievalSettings
from ondol.services.evaluation.bootstrap import Difference
from ondol.services.evaluation.datasets import Query
from ondol.services.evaluation.halves import halves
from ondol.services.evaluation.retrieval import RetrievalScores, ask_all
from ondol.services.evaluation.scores import differences, mean
from ondol.services.retrieval import RetrievalService

KEYS = ("mode", "fusion", "dense_weight", "calibration", "candidates", "rerank")
_WEIGHTS: dict[Literal["scores", "ranks"], tuple[float, ...]] = {
    "scores": (0.3, 0.4, 0.5, 0.6, 0.7),
    "ranks": (0.3, 0.5, 0.7),
}
_CANDIDATES = (50, 200)
_RERANK_DEPTHS = (20, 50)
CHUNKS = 20
"""Hits asked for: few, as a person does, so that candidates and reranking depths can tell."""

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One choice of settings and its nDCG@10 and Recall@10 on the half that chooses."""

    settings: RetrievalSettings
    ndcg_at_10: float
    recall_at_10: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            **changed(self.settings),
            "ndcg_at_10": self.ndcg_at_10,
            "recall_at_10": self.recall_at_10,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Optimised:
    """What was tried, what the held-out half says of the best, and what to use.

    ``adopted``: the best is better than what is set on questions that had no part in choosing it.
    """

    trials: tuple[Trial, ...]
    chosen: RetrievalSettings
    chosen_on: int
    held_out: int
    before: RetrievalScores
    after: RetrievalScores
    differences: dict[str, Difference]
    adopted: bool
    settings: RetrievalSettings

    def as_json(self) -> dict[str, Any]:
        return {
            "settings": changed(self.settings),
            "adopted": self.adopted,
            "chosen": changed(self.chosen),
            "chosen_on": self.chosen_on,
            "held_out": self.held_out,
            "before": self.before.figures(),
            "after": self.after.figures(),
            "differences": {figure: asdict(one) for figure, one in self.differences.items()},
            "trials": [trial.as_json() for trial in self.trials],
        }


def changed(settings: RetrievalSettings) -> dict[str, Any]:
    """Return the settings that optimising chooses, by their dotted keys."""
    keys = (*KEYS, "rerank_depth") if settings.rerank == "on" else KEYS
    return {f"retrieval.{key}": getattr(settings, key) for key in keys}


class Optimiser:
    """Tries settings on one collection. ``dense`` and ``rerank``: whether there are such models."""

    def __init__(
        self,
        retrieval: RetrievalService,
        *,
        now: Callable[[], float],
        dense: bool = True,
        rerank: bool = False,
    ) -> None:
        self._retrieval = retrieval
        self._now = now
        self._dense = dense
        self._rerank = rerank
        self._asked = 0
        self._total = 0

    async def optimise(
        self,
        collection: str,
        queries: Sequence[Query],
        current: RetrievalSettings,
        *,
        told: Told | None = None,
    ) -> Optimised:
        """Choose on one half of ``queries``, decide on the other; ``told`` hears (done, total).

        Raises ``InvalidInput`` for fewer than 16 questions with a judged document.
        """
        choosing, deciding = halves(queries)
        self._plan(len(choosing), len(deciding))
        trials = [await self._try(collection, choosing, current, told)]
        best = trials[0]
        for step in (self._fusions, self._candidates, self._rerankings):
            for settings in step(best.settings):
                if all(changed(settings) != changed(one.settings) for one in trials):
                    trials.append(await self._try(collection, choosing, settings, told))
            # The first of equals: what is set already, or what was simpler.
            best = max(trials, key=lambda one: one.ndcg_at_10)
        before = await self._score(collection, deciding, current, told)
        after = await self._score(collection, deciding, best.settings, told)
        found = differences(before.queries, after.queries)
        adopted = found["ndcg_at_10"].mean > 0
        return Optimised(
            trials=tuple(trials),
            chosen=best.settings,
            chosen_on=len(choosing),
            held_out=len(deciding),
            before=before,
            after=after,
            differences=found,
            adopted=adopted,
            settings=best.settings if adopted else current,
        )

    def _plan(self, choosing: int, deciding: int) -> None:
        fusions = 2 + sum(map(len, _WEIGHTS.values())) if self._dense else 0
        trials = 1 + fusions + len(_CANDIDATES) + (len(_RERANK_DEPTHS) + 1) * self._rerank
        self._asked, self._total = 0, trials * choosing + 2 * deciding

    def _fusions(self, best: RetrievalSettings) -> list[RetrievalSettings]:
        if not self._dense:
            return []
        alone = [best.model_copy(update={"mode": mode}) for mode in ("lexical", "dense")]
        # What was measured for the collection would go before the weight that is tried.
        tried = {"mode": "hybrid", "calibration": "off"}
        return alone + [
            best.model_copy(update={**tried, "fusion": fusion, "dense_weight": weight})
            for fusion, weights in _WEIGHTS.items()
            for weight in weights
        ]

    def _candidates(self, best: RetrievalSettings) -> list[RetrievalSettings]:
        return [best.model_copy(update={"candidates": count}) for count in _CANDIDATES]

    def _rerankings(self, best: RetrievalSettings) -> list[RetrievalSettings]:
        if not self._rerank:
            return []
        off = best.model_copy(update={"rerank": "off"})
        deep = ({"rerank": "on", "rerank_depth": depth} for depth in _RERANK_DEPTHS)
        return [off, *(best.model_copy(update=one) for one in deep)]

    async def _try(
        self,
        collection: str,
        queries: Sequence[Query],
        settings: RetrievalSettings,
        told: Told | None,
    ) -> Trial:
        scores = await self._score(collection, queries, settings, told)
        return Trial(
            settings,
            mean(scores.queries, "ndcg_at_10"),
            mean(scores.queries, "recall_at_10"),
            scores.seconds,
        )

    async def _score(
        self,
        collection: str,
        queries: Sequence[Query],
        settings: RetrievalSettings,
        told: Told | None,
    ) -> RetrievalScores:
        def count(_done: int, _all: int) -> None:
            self._asked += 1
            if told is not None:
                told(self._asked, max(self._total, self._asked))

        return await ask_all(
            self._retrieval.under(settings),
            collection,
            queries,
            mode=settings.mode,
            rerank=None if self._rerank else False,
            now=self._now,
            chunks=CHUNKS,
            querying=count,
        )

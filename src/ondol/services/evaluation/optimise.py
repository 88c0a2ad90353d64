"""Finds the cut and the search settings that suit the user's own questions.

One half of the questions chooses, step by step: how the collection is cut (where that is wanted),
mode, fusion and weight, the number of candidates, reranking, and how many hits are enough. The other
half, which had no say, decides whether all of it together is better than what is set and how the
collection is cut now. Runs the very service that answers, under other settings; changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Literal

from ondol.core.chunking import Chunking
from ondol.core.setting_sections import RetrievalSettings
from ondol.services.evaluation.cuts import Cut
from ondol.services.evaluation.cutting import Cutting
from ondol.services.evaluation.datasets import Query
from ondol.services.evaluation.halves import halves
from ondol.services.evaluation.optimised import Optimised, Trial, changed
from ondol.services.evaluation.reading_depth import HitLog, choose_depth
from ondol.services.evaluation.retrieval import RetrievalScores, ask_all
from ondol.services.evaluation.scores import differences, mean
from ondol.services.retrieval import RetrievalService
from ondol.store.records import Collection

_WEIGHTS: dict[Literal["scores", "ranks"], tuple[float, ...]] = {
    "scores": (0.3, 0.4, 0.5, 0.6, 0.7),
    "ranks": (0.3, 0.5, 0.7),
}
_CANDIDATES = (50, 200)
_RERANK_DEPTHS = (20, 50)
CHUNKS = 20
"""Hits asked for, or as many as are set: few, as a person does, so that candidates and reranking
depths can tell."""

Told = Callable[[int, int, str], None]
"""Told of steps done, steps in all, and what they are: a step is a question or a document cut."""


class Optimiser:
    """Tries settings on one collection. ``dense`` and ``rerank``: whether there are such models.

    ``cutting`` makes the cuts to try; without it the collection stays as it is cut.
    """

    def __init__(
        self,
        retrieval: RetrievalService,
        *,
        now: Callable[[], float],
        dense: bool = True,
        rerank: bool = False,
        cutting: Cutting | None = None,
    ) -> None:
        self._retrieval = retrieval
        self._now = now
        self._dense = dense
        self._rerank = rerank
        self._cutting = cutting
        self._done = 0
        self._total = 0
        self._told: Told | None = None

    async def optimise(
        self,
        kept: Collection,
        queries: Sequence[Query],
        current: RetrievalSettings,
        *,
        cuts: Sequence[Chunking] = (),
        told: Told | None = None,
    ) -> Optimised:
        """Choose on one half of ``queries``, decide on the other; ``told`` hears how far it is.

        Raises ``InvalidInput`` for fewer than 16 questions with a judged document, and what cutting
        and embedding raise.
        """
        choosing, deciding = halves(queries)
        self._plan(len(choosing), len(deciding), len(cuts))
        self._told = told
        own = Cut(kept.chunking, self._retrieval, kept.name, passages=kept.chunks)
        trials = [await self._try(own, choosing, current)]
        trials += [await self._try(cut, choosing, current) async for cut in self._cut(cuts)]
        # The first of equals: what is set already, or what was simpler.
        best = max(trials, key=lambda one: one.ndcg_at_10)
        for step in (self._fusions, self._candidates, self._rerankings):
            for settings in step(best.settings):
                known = (one.settings for one in trials if one.cut is best.cut)
                if all(changed(settings) != changed(one) for one in known):
                    trials.append(await self._try(best.cut, choosing, settings))
            best = max(trials, key=lambda one: one.ndcg_at_10)
        return await self._decide(trials, best, choosing, deciding)

    async def _decide(
        self, trials: list[Trial], best: Trial, choosing: list[Query], deciding: list[Query]
    ) -> Optimised:
        own, hits_before, hits_after = trials[0], HitLog(), HitLog()
        before = await self._score(own.cut, deciding, own.settings, hits_before)
        after = await self._score(best.cut, deciding, best.settings, hits_after)
        alone = None
        if best.cut is not own.cut and best.settings != own.settings:
            cut = await self._score(best.cut, deciding, own.settings, HitLog())
            alone = differences(before.queries, cut.queries)["ndcg_at_10"]
        found = differences(before.queries, after.queries)
        adopted = found["ndcg_at_10"].mean > 0
        used, hits = (best, hits_after) if adopted else (own, hits_before)
        return Optimised(
            trials=tuple(trials),
            chosen=best,
            chosen_on=len(choosing),
            held_out=len(deciding),
            before=before,
            after=after,
            differences=found,
            cut_alone=alone,
            adopted=adopted,
            depth=choose_depth(used.hits, hits, hits_before, own.settings.top_k),
        )

    def _plan(self, choosing: int, deciding: int, cuts: int) -> None:
        fusions = 2 + sum(map(len, _WEIGHTS.values())) if self._dense else 0
        trials = 1 + cuts + fusions + len(_CANDIDATES) + (len(_RERANK_DEPTHS) + 1) * self._rerank
        documents = self._cutting.documents if self._cutting is not None else 0
        self._done, self._total = 0, trials * choosing + cuts * documents
        self._total += (3 if cuts else 2) * deciding

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

    async def _cut(self, cuts: Sequence[Chunking]) -> AsyncIterator[Cut]:
        if self._cutting is None:
            return
        for chunking in cuts:
            note = f"cutting {chunking.strategy} {chunking.target}"
            yield await self._cutting.make(chunking, told=partial(self._step, note))

    async def _try(self, cut: Cut, queries: Sequence[Query], settings: RetrievalSettings) -> Trial:
        hits = HitLog()
        scores = await self._score(cut, queries, settings, hits)
        return Trial(
            cut,
            settings,
            mean(scores.queries, "ndcg_at_10"),
            mean(scores.queries, "recall_at_10"),
            scores.seconds,
            hits,
        )

    async def _score(
        self, cut: Cut, queries: Sequence[Query], settings: RetrievalSettings, hits: HitLog
    ) -> RetrievalScores:
        return await ask_all(
            cut.retrieval.under(settings),
            cut.collection,
            queries,
            mode=settings.mode,
            rerank=None if self._rerank else False,
            now=self._now,
            chunks=max(CHUNKS, settings.top_k),
            querying=lambda _done, _all: self._step("queries"),
            names=cut.names,
            seen=hits.add,
        )

    def _step(self, note: str) -> None:
        """Count one question or one document as done."""
        self._done += 1
        if self._told is not None:
            self._told(self._done, max(self._total, self._done), note)

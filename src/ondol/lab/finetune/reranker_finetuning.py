"""Making a small reranker: as an embedder is made, but for what is learned and what is asked.

The student's exam: does search find more when it reorders the first hits? A teacher is no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.types import OnProgress, Pair
from ondol.lab.evaluate.answer_evaluation import FIGURES, QueryScore, mean, score, values
from ondol.lab.evaluate.datasets import Query
from ondol.lab.evaluate.retrieval_evaluation import CHUNKS
from ondol.lab.evaluate.statistics import difference
from ondol.lab.finetune.embedder_training import OnTraining, TrainedWeights
from ondol.lab.finetune.exam import FIGURE, ExamVerdict, ModeVerdict
from ondol.lab.finetune.finetuning import Finetuning, PreparedFinetuning
from ondol.lab.finetune.reranker_training import train_reranker
from ondol.lab.finetune.training_pairs import TrainingMaterial
from ondol.models.catalogue import CatalogueEntry
from ondol.runtime.encoders.reranking import RerankingService
from ondol.search.retrieval import RetrievalService


class RerankerFinetuning(Finetuning):
    """Trains a reranker for the wish's collection, from the settings' embedder."""

    async def examine(
        self, container: Container, prepared: PreparedFinetuning, entry: CatalogueEntry
    ) -> ExamVerdict:
        """Ask the held-back questions, with and without the candidate's reordering."""
        parts = Parts(embedder=False, keywords=False, generator=False)
        async with self._opened(entry, parts) as tuned:
            return await examine_reranker(
                container.retrieval,
                tuned.reranking,
                self._wish.collection,
                prepared.held_back,
                depth=self._settings.retrieval.rerank_depth,
                told=lambda done, total: self._tell("asking the reranker", done, total),
            )

    def _learn(self, prepared: PreparedFinetuning, told: OnTraining | None) -> TrainedWeights:
        wish = self._wish
        return train_reranker(
            self._base,
            self._library.files(wish.teacher) if wish.teacher else None,
            prepared.material.passages,
            prepared.material.items,
            self._recipe,
            keep=wish.keep,
            checkpoint=self._checkpoint(prepared),
            identity=prepared.identity,
            clock=self._clock,
            told=told,
        )

    def _sample(self, material: TrainingMaterial) -> Sequence[str | Pair]:
        return [Pair(item.query, material.passages[item.positives[0]]) for item in material.items]


async def examine_reranker(
    retrieval: RetrievalService,
    reranking: RerankingService,
    collection: str,
    queries: Sequence[Query],
    *,
    depth: int,
    told: OnProgress | None = None,
) -> ExamVerdict:
    """Compare search as it is set with the same hits, the first ``depth`` of them reordered."""
    plain: list[QueryScore] = []
    reordered: list[QueryScore] = []
    for done, query in enumerate(queries, start=1):
        found = await retrieval.search(collection, query.text, top_k=CHUNKS, rerank=False)
        documents = [hit.document for hit in found.hits]
        first = found.hits[:depth]
        texts = [f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in first]
        order = await reranking.rerank(query.text, texts, truncate=True, lane=None)
        moved = [documents[item.index] for item in order.results] + documents[depth:]
        plain.append(score(query, list(dict.fromkeys(documents))))
        reordered.append(score(query, list(dict.fromkeys(moved))))
        if told is not None:
            told(done, len(queries))
    verdict = ModeVerdict(
        base={figure: mean(plain, figure) for figure in FIGURES},
        tuned={figure: mean(reordered, figure) for figure in FIGURES},
        difference=difference(values(plain, FIGURE), values(reordered, FIGURE)),
    )
    return ExamVerdict(len(queries), {"reranked": verdict})

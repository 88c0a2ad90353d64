"""Trains a small reranker: the lower layers of an embedder, a new head, a teacher's scores.

The door for services, as ``embedder`` is. The teacher is any reranker of the library, loaded in its
own form; without one, the judged passages are what is to be learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ondol.backends.tokenizer import TextTokenizer
from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput
from ondol.core.types import Encoded, Pair
from ondol.lab.finetune.embedder_training import OnTraining, TextItem, TrainedWeights, give_way
from ondol.lab.finetune.recipe import Recipe
from ondol.lab.finetune.weights_file import cut_layers
from ondol.models.library import ModelFiles
from ondol.models.loading import load_encoder
from ondol.models.manifest import read_weights

_TEACHER_TOKENS = 2048


def train_reranker(
    base: ModelFiles,
    teacher: ModelFiles | None,
    passages: Sequence[str],
    items: Sequence[TextItem],
    recipe: Recipe,
    *,
    keep: int,
    checkpoint: Path,
    identity: str,
    clock: Clock,
    told: OnTraining | None = None,
) -> TrainedWeights:
    """Train a student of ``keep`` layers of ``base``; raises as ``train_embedder`` does."""
    give_way()
    from ondol.lab.finetune.losses import DistillationLesson, RankedList, weights_of
    from ondol.lab.finetune.network import TrainableEncoder
    from ondol.lab.finetune.training_loop import Trainer, prepare_torch

    weights = cut_layers(read_weights(base.entry, base.folder), keep)
    lists = []
    longest = min(recipe.query_tokens + recipe.document_tokens, weights.shape.positions)
    taught = None if teacher is None else Teacher(teacher, threads=recipe.threads or 1)
    tokenizer = TextTokenizer(_tokenizer(base), model=base.entry.id, max_tokens=longest)
    for item in items:
        places = (*item.positives, *item.negatives[: recipe.negatives])
        pairs = [Pair(item.query, passages[at]) for at in places]
        encoded = tokenizer.tokenize(pairs, truncate=True)
        if len(pairs) < 2 or not all(isinstance(one, Encoded) for one in encoded):
            continue
        right = len(item.positives)
        wanted = (
            tuple(1 / right if n < right else 0.0 for n in range(len(pairs)))
            if taught is None
            else weights_of(taught.scores(pairs))
        )
        lists.append(RankedList(tuple(e for e in encoded if isinstance(e, Encoded)), wanted))
    if taught is not None:
        taught.close()
    if len(lists) < 2:
        raise InvalidInput(
            f"{len(lists)} queries are left to learn from", hint="check the pairs' documents"
        )
    prepare_torch(recipe)
    network = TrainableEncoder(weights, pooling="cls", recipe=recipe, head=True)
    lesson = DistillationLesson(network, lists, recipe)
    report = Trainer(
        network,
        lesson,
        recipe,
        checkpoint=checkpoint,
        identity=identity,
        clock=clock,
        told=told,
    ).run()
    return TrainedWeights(network.learned(), report)


class Teacher:
    """A reranker that scores pairs, one query's at a time."""

    def __init__(self, files: ModelFiles, *, threads: int) -> None:
        self._encoder = load_encoder(files, threads=threads)

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the raw logit of each pair, cut to the model's length; raises the first's error."""
        items = []
        for one in self._encoder.tokenize(pairs, truncate=True):
            if not isinstance(one, Encoded):
                raise one
            items.append(one)
        size = max(1, _TEACHER_TOKENS // max(item.tokens for item in items))
        found: list[float] = []
        for start in range(0, len(items), size):
            found += self._encoder.run(items[start : start + size])[:, 0].tolist()
        return found

    def close(self) -> None:
        """Release the model."""
        self._encoder.close()


def _tokenizer(files: ModelFiles) -> Path:
    if files.tokenizer_path is None:
        raise InvalidInput(f"{files.entry.id} has no tokenizer", hint="choose another base")
    return files.tokenizer_path

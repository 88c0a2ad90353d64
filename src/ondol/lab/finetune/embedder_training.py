"""Trains an embedder on texts: token ids, the network, the run. The room's door for services.

torch is imported when training starts, not before. What was learned comes back as arrays; writing it
is ``candidate``'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ondol.backends.tokenizer import TextTokenizer
from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput, ModelError, OndolError
from ondol.core.extras import install_command
from ondol.core.types import Encoded
from ondol.kernels.bert import FloatArray
from ondol.lab.finetune.recipe import Recipe, TrainingProgress
from ondol.lab.finetune.training_examples import Example, TrainingSet
from ondol.models.catalogue import CatalogueEntry
from ondol.models.library import ModelFiles
from ondol.models.manifest import read_weights

if TYPE_CHECKING:
    from ondol.lab.finetune.training_loop import TrainingReport

OnTraining = Callable[[TrainingProgress], None]

_SPINS = "1000"


class TextItem(Protocol):
    """A query and the numbers of its passages: right, wrong, and not to be counted as wrong."""

    @property
    def query(self) -> str: ...
    @property
    def positives(self) -> tuple[int, ...]: ...
    @property
    def negatives(self) -> tuple[int, ...]: ...
    @property
    def related(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """What a run came to: the tensors that may have changed, and how it went."""

    tensors: dict[str, FloatArray]
    report: TrainingReport


def check_trainable(entry: CatalogueEntry, recipe: Recipe) -> None:
    """Raise before any work is done: ``InvalidInput`` for the model or recipe, ``ModelError`` for torch."""
    if entry.role != "embedder":
        raise InvalidInput(
            f"{entry.id} is a {entry.role}; an embedder is needed",
            hint="see `ondol models list --role embedder`",
            param="base",
        )
    if find_spec("torch") is None:
        raise ModelError("torch is not installed", hint=install_command("finetune"))
    recipe.check()


def give_way() -> None:
    """Keep torch's threads from spinning where they wait; call it before torch is imported.

    On a busy machine threads that spin for one that has no processor use up what there is (ADR 12).
    What the user has set stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def train_embedder(
    files: ModelFiles,
    passages: Sequence[str],
    items: Sequence[TextItem],
    recipe: Recipe,
    *,
    checkpoint: Path,
    identity: str,
    clock: Clock,
    told: OnTraining | None = None,
) -> TrainedWeights:
    """Train ``files`` on ``items`` over ``passages``, going on from ``checkpoint`` where it is this run's.

    Raises ``InvalidInput`` where nothing is left to learn from, ``ModelError`` where training fails.
    """
    give_way()
    from ondol.lab.finetune.losses import ContrastiveLesson
    from ondol.lab.finetune.network import TrainableEncoder
    from ondol.lab.finetune.training_loop import Trainer, prepare_torch

    entry = files.entry
    weights = read_weights(entry, files.folder)
    data = training_set(files, passages, items, recipe, positions=weights.shape.positions)
    prepare_torch(recipe)
    network = TrainableEncoder(
        weights, pooling="cls" if entry.pooling == "cls" else "mean", recipe=recipe
    )
    trainer = Trainer(
        network,
        ContrastiveLesson(network, data, recipe),
        recipe,
        checkpoint=checkpoint,
        identity=identity,
        clock=clock,
        told=told,
    )
    report = trainer.run()
    return TrainedWeights(network.learned(), report)


def training_set(
    files: ModelFiles,
    passages: Sequence[str],
    items: Sequence[TextItem],
    recipe: Recipe,
    *,
    positions: int,
) -> TrainingSet:
    """Return the texts as token ids, cut to the recipe's lengths; texts that cannot be read are left out."""
    entry = files.entry

    def encoded(texts: Sequence[str], longest: int) -> list[Encoded | OndolError]:
        if files.tokenizer_path is None:
            raise ModelError(f"{entry.id} has no tokenizer", hint=f"ondol models pull {entry.id}")
        most = min(longest, entry.max_tokens, positions)
        tokenizer = TextTokenizer(files.tokenizer_path, model=entry.id, max_tokens=most)
        return tokenizer.tokenize(texts, truncate=True)

    texts = encoded([entry.document_prefix + one for one in passages], recipe.document_tokens)
    place: dict[int, int] = {}
    kept: list[Encoded] = []
    for number, one in enumerate(texts):
        if isinstance(one, Encoded):
            place[number] = len(kept)
            kept.append(one)
    queries = encoded([entry.query_prefix + one.query for one in items], recipe.query_tokens)
    examples = []
    for item, query in zip(items, queries, strict=True):
        positives = tuple(place[at] for at in item.positives if at in place)
        if isinstance(query, Encoded) and positives:
            negatives = tuple(place[at] for at in item.negatives if at in place)
            related = frozenset(place[at] for at in item.related if at in place)
            examples.append(Example(query, positives, negatives, related))
    if len(examples) < 2:
        raise InvalidInput(
            f"{len(examples)} pairs are left to train on", hint="check the pairs' documents"
        )
    return TrainingSet(kept, examples)

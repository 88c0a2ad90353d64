"""One step of contrastive learning: queries towards their passages, away from all others.

InfoNCE over the batch's passages and mined ones (van den Oord et al. 2018, arXiv:1807.03748). What
may be right after all is left out: judged passages, and those nearer than the right one by a margin
(Zhang et al. 2025, arXiv:2506.05176). Batches larger than memory run in parts whose gradients come
from the vectors (GradCache, Gao et al. 2021, arXiv:2101.06983): the same sum, one more pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ondol.models.finetuning.examples import (
    Batch,
    TrainingSet,
    batch_at,
    batches_per_epoch,
    parts_of,
)
from ondol.models.finetuning.network import TrainableEncoder
from ondol.models.finetuning.recipe import Recipe


class ContrastiveLesson:
    """Teaches ``network`` the examples of ``data``."""

    def __init__(self, network: TrainableEncoder, data: TrainingSet, recipe: Recipe) -> None:
        self._network = network
        self._data = data
        self._recipe = recipe
        self.steps_per_epoch = batches_per_epoch(len(data.examples), batch=recipe.batch)

    def backward(self, step: int) -> float:
        """Add the gradients of ``step``'s loss to the network's tensors; returns the loss."""
        recipe, network = self._recipe, self._network
        batch = batch_at(
            self._data.examples,
            step,
            size=recipe.batch,
            negatives=recipe.negatives,
            seed=recipe.seed,
        )
        items = [one.query for one in batch.examples]
        items += [self._data.passages[i] for i in batch.passages]
        parts = parts_of([item.tokens for item in items], tokens=recipe.part_tokens)
        states = [network.states([items[i] for i in part]) for part in parts]
        places = torch.tensor([i for part in parts for i in part]).argsort()
        if len(parts) == 1:
            loss = self._loss(network.outputs(states[0])[places], batch)
            loss.backward()
            return float(loss.detach())
        with torch.no_grad():
            vectors = torch.cat([network.outputs(one) for one in states])
        vectors.requires_grad_()
        loss = self._loss(vectors[places], batch)
        loss.backward()
        if vectors.grad is None:  # pragma: no cover - backward always fills it
            raise RuntimeError("the loss did not reach the vectors")
        gradients = torch.split(vectors.grad, [len(part) for part in parts])
        for one, gradient in zip(states, gradients, strict=True):
            torch.autograd.backward(network.outputs(one), gradient)
        return float(loss.detach())

    def _loss(self, vectors: torch.Tensor, batch: Batch) -> torch.Tensor:
        count = len(batch.examples)
        return info_nce(
            vectors[:count],
            vectors[count:],
            batch,
            temperature=self._recipe.temperature,
            margin=self._recipe.margin,
        )


def info_nce(
    queries: torch.Tensor,
    passages: torch.Tensor,
    batch: Batch,
    *,
    temperature: float,
    margin: float,
) -> torch.Tensor:
    """Return the mean loss of unit ``queries`` ``(b, d)`` against unit ``passages`` ``(p, d)``."""
    place = {passage: column for column, passage in enumerate(batch.passages)}
    targets = torch.tensor([place[target] for target in batch.targets])
    spared = torch.zeros(len(queries), len(passages), dtype=torch.bool)
    for row, one in enumerate(batch.examples):
        columns = [place[passage] for passage in one.spared if passage in place]
        spared[row, columns] = True
    cosines = queries @ passages.T
    right = cosines.gather(1, targets[:, None])
    spared |= cosines.detach() > right.detach() + margin
    spared[torch.arange(len(queries)), targets] = False
    return F.cross_entropy((cosines / temperature).masked_fill(spared, float("-inf")), targets)

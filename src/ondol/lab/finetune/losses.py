"""One step of contrastive learning: queries towards their passages, away from all others.

InfoNCE over the batch's passages and mined ones (van den Oord et al. 2018, arXiv:1807.03748). What
may be right after all is left out: judged passages, and those nearer than the right one by a margin
(Zhang et al. 2025, arXiv:2506.05176). Batches larger than memory run in parts whose gradients come
from the vectors (GradCache, Gao et al. 2021, arXiv:2101.06983): the same sum, one more pass.

One step of distillation: a small reranker learns a teacher's order of a query's passages.

The student's scores of one query's passages, as a distribution, are drawn to the teacher's (listwise
distillation; Reddi et al. 2021, RankDistil). Where there is no teacher, the judged passages share the
weight. Queries run in parts whose gradients add up, so memory is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ondol.core.types import Encoded
from ondol.lab.finetune.network import TrainableEncoder
from ondol.lab.finetune.recipe import Recipe
from ondol.lab.finetune.training_examples import (
    Batch,
    TrainingSet,
    batch_at,
    batches_per_epoch,
    parts_of,
)


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


@dataclass(frozen=True, slots=True)
class RankedList:
    """A query's pairs as token ids, and the weight of each by the teacher, adding up to 1."""

    pairs: tuple[Encoded, ...]
    weights: tuple[float, ...]


class DistillationLesson:
    """Teaches ``network`` (with a head) the order of ``lists``."""

    def __init__(
        self, network: TrainableEncoder, lists: Sequence[RankedList], recipe: Recipe
    ) -> None:
        self._network = network
        self._lists = lists
        self._recipe = recipe
        self.steps_per_epoch = batches_per_epoch(len(lists), batch=recipe.batch)

    def backward(self, step: int) -> float:
        """Add the gradients of ``step``'s loss to the network's tensors; returns the loss."""
        recipe = self._recipe
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(self._lists))
        chosen = [self._lists[i] for i in order[place * recipe.batch : (place + 1) * recipe.batch]]
        total = 0.0
        for group in _groups(chosen, tokens=recipe.part_tokens):
            loss = self._loss(group) / len(chosen)
            loss.backward()
            total += float(loss.detach())
        return total

    def _loss(self, group: Sequence[RankedList]) -> torch.Tensor:
        """Return the divergence of student from teacher, added up over ``group``."""
        network = self._network
        pairs = [pair for one in group for pair in one.pairs]
        scores = network.outputs(network.states(pairs))[:, 0]
        losses = []
        for one, own in zip(group, scores.split([len(g.pairs) for g in group]), strict=True):
            wanted = torch.tensor(one.weights)
            losses.append(F.kl_div(F.log_softmax(own, dim=0), wanted, reduction="sum"))
        return torch.stack(losses).sum()


def weights_of(scores: Sequence[float], *, temperature: float = 1.0) -> tuple[float, ...]:
    """Return a teacher's raw scores as weights that add up to 1."""
    values = np.asarray(scores, np.float64) / temperature
    powers = np.exp(values - values.max())
    return tuple((powers / powers.sum()).tolist())


def _groups(lists: Sequence[RankedList], *, tokens: int) -> list[list[RankedList]]:
    """Return the lists in groups of at most ``tokens`` when padded, or of one list."""
    groups: list[list[RankedList]] = []
    longest = count = 0
    for one in lists:
        longest = max(longest, *(pair.tokens for pair in one.pairs))
        count += len(one.pairs)
        if groups and longest * count <= tokens:
            groups[-1].append(one)
        else:
            groups.append([one])
            longest, count = max(pair.tokens for pair in one.pairs), len(one.pairs)
    return groups

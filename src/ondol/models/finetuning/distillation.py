"""One step of distillation: a small reranker learns a teacher's order of a query's passages.

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
from ondol.models.finetuning.examples import batches_per_epoch
from ondol.models.finetuning.network import TrainableEncoder
from ondol.models.finetuning.recipe import Recipe


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

"""Which few of many texts stand for all, within a token budget.

Three ways over unit vectors: facility location (every text is near a chosen one; lazy greedy after
Minoux 1978, with the cost-benefit rule for budgets of Leskovec et al. 2007), maximal marginal
relevance (Carbonell and Goldstein 1998), and the medoids of strata. Pure and deterministic: ties go to
the lower index, and a choice under a larger limit begins with the choice under a smaller one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from ondol.core.types import FloatMatrix

Method = Literal["facility", "mmr", "medoids", "all"]

_WITNESSES = (
    2_000  # texts that must be near a chosen one; more would cost memory and change nothing
)
_SLACK = 1e-12


def represent(
    vectors: FloatMatrix,
    costs: Sequence[int],
    *,
    budget: int,
    limit: int,
    method: Method = "facility",
    strata: Sequence[int] | None = None,
    balance: float = 0.7,
) -> list[int]:
    """Return the indices of at most ``limit`` rows of ``vectors`` that cost at most ``budget``.

    ``vectors`` are L2-normalised, of shape ``(texts, dimensions)``; ``costs`` are tokens above 0.
    ``strata`` numbers the group of each text, for ``medoids``; ``balance`` is MMR's weight of nearness
    to the whole against distance from the chosen. Indices come in the order in which they were chosen.
    """
    if not len(costs):
        return []
    match method:
        case "facility":
            order = _facility(vectors, costs, budget=budget, limit=limit)
        case "mmr":
            order = _mmr(vectors, costs, budget=budget, limit=limit, balance=balance)
        case "medoids":
            order = _medoids(vectors, strata)
        case "all":  # in their own order: the baseline
            order = list(range(len(costs)))
        case _:
            assert_never(method)
    return _affordable(order, costs, budget=budget, limit=limit)


def _facility(vectors: FloatMatrix, costs: Sequence[int], *, budget: int, limit: int) -> list[int]:
    """Return the greedy order: the most new coverage first, under a tight budget per token."""
    witnesses = vectors[:: max(1, -(-len(vectors) // _WITNESSES))]
    affinity = np.clip(vectors @ witnesses.T, 0.0, None).astype(np.float64)
    mean_cost = float(np.mean([min(cost, budget) for cost in costs])) or 1.0
    tight = budget < limit * mean_cost
    price = np.maximum(np.asarray(costs, dtype=np.float64), 1.0) if tight else np.ones(len(costs))
    covered = np.zeros(len(witnesses))
    heap = [(-gain / price[i], i) for i, gain in enumerate(affinity.sum(axis=1))]
    heapq.heapify(heap)
    order: list[int] = []
    spent = 0
    while heap and len(order) < limit:
        _, index = heapq.heappop(heap)
        if spent + costs[index] > budget:
            continue
        gain = float(np.maximum(affinity[index] - covered, 0.0).sum()) / price[index]
        if heap and (-gain, index) > (heap[0][0] + _SLACK, heap[0][1]):
            heapq.heappush(heap, (-gain, index))
            continue
        order.append(index)
        spent += costs[index]
        covered = np.maximum(covered, affinity[index])
    return order


def _mmr(
    vectors: FloatMatrix, costs: Sequence[int], *, budget: int, limit: int, balance: float
) -> list[int]:
    """Return the order of marginal relevance to the mean of all."""
    centre = vectors.mean(axis=0)
    relevance = (vectors @ centre).astype(np.float64)
    nearest = np.full(len(vectors), -np.inf)
    free = np.array([cost <= budget for cost in costs])
    order: list[int] = []
    left = budget
    while free.any() and len(order) < limit:
        redundancy = np.where(np.isfinite(nearest), nearest, 0.0)
        score = np.where(free, balance * relevance - (1 - balance) * redundancy, -np.inf)
        index = int(np.argmax(score))
        order.append(index)
        left -= costs[index]
        free[index] = False
        free &= np.asarray(costs) <= left
        nearest = np.maximum(nearest, vectors @ vectors[index])
    return order


def _medoids(vectors: FloatMatrix, strata: Sequence[int] | None) -> list[int]:
    """Return, in turn from each stratum (largest first), the texts nearest to its centre."""
    groups = np.zeros(len(vectors), dtype=np.int64) if strata is None else np.asarray(strata)
    names, sizes = np.unique(groups, return_counts=True)
    ranked: list[list[int]] = []
    for name in names[np.lexsort((names, -sizes))]:
        ranked.append(_central(vectors, np.flatnonzero(groups == name)))
    turns = max(len(group) for group in ranked)
    return [group[turn] for turn in range(turns) for group in ranked if turn < len(group)]


def _central(vectors: FloatMatrix, members: NDArray[np.intp]) -> list[int]:
    nearness = (vectors[members] @ vectors[members].mean(axis=0)).astype(np.float64)
    return [int(members[i]) for i in np.lexsort((members, -nearness))]


def _affordable(
    order: Sequence[int], costs: Sequence[int], *, budget: int, limit: int
) -> list[int]:
    chosen: list[int] = []
    spent = 0
    for index in order:
        if len(chosen) >= limit:
            break
        if spent + costs[index] <= budget:
            chosen.append(index)
            spent += costs[index]
    return chosen


def fitting_budget(costs: Sequence[int], *, limit: int, most: int) -> int:
    """Return the token budget under which ``limit`` texts of usual cost fit, at most ``most``.

    Usual is the mean of the costs below their 90th percentile: one very long text buys nothing.
    """
    if not len(costs):
        return most
    kept = np.minimum(costs, np.percentile(costs, 90))
    return int(min(most, max(int(np.ceil(limit * float(np.mean(kept)) * 1.25)), min(costs))))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.core.types import FloatMatrix
from ondol.tasks.representatives import Method, fitting_budget, represent

METHODS: tuple[Method, ...] = ("facility", "mmr", "medoids", "all")


def unit(seed: int, count: int, dimensions: int = 8) -> FloatMatrix:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 60), min_size=1, max_size=40),
    st.integers(1, 300),
    st.integers(1, 25),
    st.sampled_from(METHODS),
)
def test_budget_and_limit_hold_and_the_choice_is_repeatable(
    seed: int, costs: list[int], budget: int, limit: int, method: Method
) -> None:
    vectors = unit(seed, len(costs))
    chosen = represent(vectors, costs, budget=budget, limit=limit, method=method)
    assert sum(costs[i] for i in chosen) <= budget
    assert len(chosen) == len(set(chosen)) <= limit
    assert chosen == represent(vectors, costs, budget=budget, limit=limit, method=method)
    if min(costs) <= budget:
        assert chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.sampled_from(METHODS))
def test_a_larger_limit_only_adds(seed: int, count: int, method: Method) -> None:
    vectors = unit(seed, count)
    costs = [1] * count
    few = represent(vectors, costs, budget=count, limit=count // 2, method=method)
    many = represent(vectors, costs, budget=count, limit=count, method=method)
    assert many[: len(few)] == few


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 25))
def test_facility_is_the_plain_greedy(seed: int, count: int) -> None:
    vectors = unit(seed, count)
    affinity = np.clip(vectors @ vectors.T, 0.0, None).astype(np.float64)
    covered = np.zeros(count)
    gains = []
    for index in represent(vectors, [1] * count, budget=5, limit=5):
        possible = np.maximum(affinity - covered, 0.0).sum(axis=1)
        gains.append(possible[index])
        assert possible[index] == pytest.approx(possible.max())
        covered = np.maximum(covered, affinity[index])
    assert gains == sorted(gains, reverse=True)


def test_ties_go_to_the_lower_index() -> None:
    same = np.ones((4, 2), dtype=np.float32) / np.float32(np.sqrt(2))
    for method in METHODS:
        assert represent(same, [1] * 4, budget=1, limit=1, method=method) == [0]


def test_facility_takes_one_of_each_cluster_before_a_second() -> None:
    centres = np.eye(3, 8, dtype=np.float32)
    vectors = np.repeat(centres, 4, axis=0)
    chosen = represent(vectors, [1] * 12, budget=3, limit=3)
    assert sorted(i // 4 for i in chosen) == [0, 1, 2]


def test_medoids_take_turns_by_stratum() -> None:
    vectors = unit(3, 9)
    strata = [0, 0, 0, 0, 0, 1, 1, 1, 2]
    chosen = represent(vectors, [1] * 9, budget=3, limit=3, method="medoids", strata=strata)
    assert [strata[i] for i in chosen] == [0, 1, 2]


def test_nothing_and_everything_too_long() -> None:
    assert represent(np.zeros((0, 4), np.float32), [], budget=5, limit=3) == []
    assert represent(unit(1, 2), [10, 10], budget=5, limit=3) == []


def test_the_budget_follows_the_usual_length() -> None:
    assert fitting_budget([10] * 50, limit=20, most=700) == 250
    assert fitting_budget([100] * 50, limit=20, most=700) == 700
    assert fitting_budget([10] * 49 + [5_000], limit=20, most=700) == 250
    assert fitting_budget([], limit=20, most=700) == 700

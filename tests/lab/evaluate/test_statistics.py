from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.lab.evaluate.statistics import ndcg, percentile, recall, reciprocal_rank
from ondol.lab.evaluate.wording import contains, exact_match, token_f1

names = st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=12)


def test_ndcg_of_a_known_ranking() -> None:
    assert ndcg(["x", "a"], {"a": 1.0}) == pytest.approx(1 / math.log2(3))
    assert ndcg(["a", "b"], {"a": 1.0, "b": 1.0}) == 1.0
    assert ndcg(["x"] * 10 + ["a"], {"a": 1.0}) == 0.0


@given(names, st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([1.0, 2.0]), min_size=1))
def test_metrics_stay_between_zero_and_one(ranked: list[str], relevant: dict[str, float]) -> None:
    for metric in (ndcg, recall, reciprocal_rank):
        assert 0.0 <= metric(ranked, relevant) <= 1.0


@pytest.mark.parametrize(
    ("answer", "gold", "found"),
    [
        ("야근 식대는 13,500원입니다.", "13500원", True),
        ("113,500원입니다", "13,500원", False),
        ("3개월입니다", "3 개월", True),
        ("13개월", "3개월", False),
        ("연 6분으로 한다", "6분", True),
        ("It takes 3.5 days.", "3.5 days", True),
        ("It takes 3.5 days.", "5 days", False),
        ("모르겠습니다", "15일", False),
    ],
)
def test_contains_minds_number_borders(answer: str, gold: str, found: bool) -> None:
    assert contains(answer, [gold]) is found


def test_exact_match_and_f1() -> None:
    assert exact_match("13,500 원.", ["13500 원"])
    assert token_f1("the red car", ["red car"]) == 1.0
    assert token_f1("서울특별시", ["서울"]) == pytest.approx(2 * (2 / 5) * 1 / (2 / 5 + 1))
    assert token_f1("", ["x"]) == 0.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_percentiles_lie_among_the_values(values: list[float], share: float) -> None:
    assert min(values) <= percentile(values, share) <= max(values) + 1e-6


def by_scores(scores: Sequence[float], gains: Sequence[float]) -> float:
    """nDCG of ranking places by their scores, ties in order."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return ndcg(order, dict(enumerate(gains)))


def test_ndcg_by_hand() -> None:
    assert by_scores([3, 2, 1], [1, 0, 0]) == 1.0
    assert by_scores([1, 2, 3], [1, 0, 0]) == pytest.approx(1 / math.log2(4))
    assert by_scores([1, 2], [0, 0]) == 0.0
    assert by_scores(list(range(20, 0, -1)), [0] * 10 + [1] * 10) == 0.0


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 3)), min_size=1, max_size=30),
)
def test_no_order_beats_the_judged_one(items: list[tuple[float, int]]) -> None:
    gains = [float(gain) for _, gain in items]
    found = by_scores([score for score, _ in items], gains)
    assert 0.0 <= found <= 1.0 + 1e-12
    if any(gains):
        assert by_scores(gains, gains) == pytest.approx(1.0)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.errors import InvalidInput
from ondol.search.fusion import reciprocal_rank_fusion, score_fusion

LEG = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0, 1)), max_size=30, unique_by=lambda p: p[0]
)
LEGS = st.dictionaries(st.sampled_from(["dense", "lexical", "third"]), LEG, max_size=3)


def test_ranks_add_up() -> None:
    legs = {"dense": [(1, 0.9), (2, 0.8)], "lexical": [(2, 7.0), (3, 5.0)]}
    fused = dict(reciprocal_rank_fusion(legs, k=60))
    assert fused == pytest.approx({2: 1 / 62 + 1 / 61, 1: 1 / 61, 3: 1 / 62})
    assert next(iter(fused)) == 2


def test_weights_scale_a_leg() -> None:
    legs = {"dense": [(1, 0.9)], "lexical": [(2, 7.0)]}
    assert reciprocal_rank_fusion(legs, k=60, weights={"lexical": 2.0})[0][0] == 2
    assert [i for i, _ in reciprocal_rank_fusion(legs, k=60)] == [1, 2]  # a tie goes by id


def test_a_repeated_id_counts_at_its_first_place_only() -> None:
    repeated = reciprocal_rank_fusion({"a": [(1, 3.0), (1, 2.0), (2, 1.0)]}, k=10)
    assert repeated == reciprocal_rank_fusion({"a": [(1, 3.0), (2, 1.0)]}, k=10)


@given(LEGS, st.integers(1, 100))
def test_fusion_holds_every_id_once_in_order(
    legs: dict[str, list[tuple[int, float]]], k: int
) -> None:
    for fused in (reciprocal_rank_fusion(legs, k=k), score_fusion(legs)):
        assert {i for i, _ in fused} == {i for leg in legs.values() for i, _ in leg}
        assert fused == sorted(fused, key=lambda pair: (-pair[1], pair[0]))
    backwards = dict(reversed(legs.items()))
    assert reciprocal_rank_fusion(backwards, k=k) == reciprocal_rank_fusion(legs, k=k)
    assert score_fusion(backwards) == score_fusion(legs)


def test_scores_count_by_their_spread() -> None:
    legs = {"dense": [(1, 0.90), (2, 0.89)], "lexical": [(2, 9.0), (3, 1.0)]}
    assert [i for i, _ in score_fusion(legs)] == [1, 2, 3]
    assert score_fusion({"dense": [(1, 0.5)], "lexical": []}) == [(1, 0.0)]


@pytest.mark.parametrize(
    ("k", "weights"),
    [(0, None), (-1, None), (60, {"other": 1.0}), (60, {"a": -1.0}), (60, {"a": float("nan")})],
)
def test_fusion_that_is_refused(k: int, weights: dict[str, float] | None) -> None:
    with pytest.raises(InvalidInput):
        reciprocal_rank_fusion({"a": [(1, 1.0)]}, k=k, weights=weights)

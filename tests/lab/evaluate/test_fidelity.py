"""The figures of the fidelity gate against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.types import FloatMatrix
from ondol.lab.evaluate.fidelity import (
    EmbedderFidelity,
    RerankerFidelity,
    band,
    compare_embeddings,
    compare_scores,
    mean_error,
    pair_similarities,
    ranks,
    relative_drop,
    spearman,
    spearman_drop_error,
    top1_agreement,
)
from ondol.models.agreement import cosines, kendall_tau

values = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=25)


def rows(*texts: list[float]) -> FloatMatrix:
    return np.asarray(texts, dtype=np.float32)


def vector(*entries: float) -> FloatMatrix:
    return np.asarray(entries, dtype=np.float32)


def naive_tau(a: list[float], b: list[float]) -> float:
    concordant = discordant = tied_a = tied_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        left, right = a[i] - a[j], b[i] - b[j]
        tied_a += left == 0
        tied_b += right == 0
        concordant += left * right > 0
        discordant += left * right < 0
    pairs = len(a) * (len(a) - 1) / 2
    scale = math.sqrt((pairs - tied_a) * (pairs - tied_b))
    return (concordant - discordant) / scale if scale else 0.0


def test_cosines_of_rows() -> None:
    found = cosines(rows([1, 0], [1, 1], [2, 0], [0, 0]), rows([3, 0], [1, -1], [-1, 0], [0, 0]))
    np.testing.assert_allclose(found, [1, 0, -1, 1], atol=1e-12)
    with pytest.raises(ValueError, match="differ"):
        cosines(rows([1, 0]), rows([1, 0], [1, 0]))


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_length_does_not_change_a_cosine(scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    left = random.standard_normal((4, 8)).astype(np.float32)
    right = random.standard_normal((4, 8)).astype(np.float32)
    scaled = (right * np.float32(scale)).astype(np.float32)
    np.testing.assert_allclose(cosines(left, scaled), cosines(left, right), atol=1e-5)


def test_pairs_are_neighbours() -> None:
    found = pair_similarities(rows([1, 0], [1, 0], [1, 0], [0, 1]))
    np.testing.assert_allclose(found, [1, 0], atol=1e-12)


@given(values)
def test_ranks_are_places_in_the_sorted_order_shared_among_ties(given_values: list[float]) -> None:
    ordered = sorted(given_values)
    expected = []
    for value in given_values:
        places = [place for place, other in enumerate(ordered, start=1) if other == value]
        expected.append(sum(places) / len(places))
    np.testing.assert_allclose(ranks(given_values), expected)


@given(values.flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
def test_spearman_is_the_correlation_of_ranks(pair: tuple[list[float], list[float]]) -> None:
    left, right = pair
    found = spearman(left, right)
    if len(set(left)) == 1:
        assert found == 0.0
        return
    assert found == pytest.approx(np.corrcoef(ranks(left), ranks(right))[0, 1])
    assert spearman(left, [math.exp(value) for value in left]) == pytest.approx(1.0)
    assert spearman(left, [-value for value in left]) == pytest.approx(-1.0)


@given(values.flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
def test_kendall_counts_pairs(pair: tuple[list[float], list[float]]) -> None:
    left, right = pair
    assert kendall_tau(left, right) == pytest.approx(naive_tau(left, right))
    assert kendall_tau([1.0], [2.0]) == 1.0


def test_top1_agreement_counts_queries_with_the_same_best_passage() -> None:
    reference = [vector(3, 1, 2), vector(1, 2)]
    assert top1_agreement(reference, [vector(9, 8, 7), vector(2, 1)]) == 0.5


@pytest.mark.parametrize(
    ("cosine", "word"),
    [(1.0, "kept"), (0.95, "kept"), (0.9499, "tolerable"), (0.9, "tolerable"), (0.89, "rejected")],
)
def test_bands(cosine: float, word: str) -> None:
    assert band(cosine) == word


def test_a_gain_is_no_loss() -> None:
    assert relative_drop(0.8, 0.72) == pytest.approx(0.1)
    assert relative_drop(0.8, 0.9) == 0.0
    assert relative_drop(None, 0.9) == relative_drop(0.9, None) == 0.0


def test_a_drop_counts_beyond_its_error() -> None:
    assert relative_drop(0.8, 0.72, error=0.04) == pytest.approx(0.05)
    assert relative_drop(0.8, 0.79, error=0.04) == 0.0
    noisy = embedder(
        cosine_mean=0.999, sts_spearman=0.79, sts_spearman_reference=0.8, sts_drop_error=0.01
    )
    assert noisy.loss == pytest.approx(0.001)


def test_the_error_of_a_drop_shrinks_with_the_sample() -> None:
    random = np.random.default_rng(5)
    errors = []
    for count in (50, 1000):
        scores = random.uniform(0, 5, count)
        before = scores + random.normal(0, 1, count)
        after = before + random.normal(0, 0.1, count)
        errors.append(spearman_drop_error(before, after, list(scores)))
        drop = spearman(before, scores) - spearman(after, scores)
        assert abs(drop) < 4 * errors[-1]
    assert 0 < errors[1] < errors[0] / 2
    assert spearman_drop_error(before, before, list(scores)) == 0.0
    assert spearman_drop_error(before[:2], after[:2], [1.0, 2.0]) == 0.0


def test_the_error_of_a_mean() -> None:
    assert mean_error([1.0, 3.0]) == pytest.approx(1.0)
    assert mean_error([2.0]) == 0.0


def embedder(**figures: float) -> EmbedderFidelity:
    return EmbedderFidelity(texts=1, cosine_p1=0.9, cosine_min=0.9, **figures)


def test_an_embedders_loss_is_its_worst_figure() -> None:
    assert embedder(cosine_mean=0.98).loss == pytest.approx(0.02)
    by_sts = embedder(cosine_mean=0.98, sts_spearman=0.72, sts_spearman_reference=0.8)
    assert by_sts.loss == pytest.approx(0.1)
    by_ndcg = embedder(cosine_mean=0.98, ndcg_at_10=0.6, ndcg_at_10_reference=0.8)
    assert by_ndcg.loss == pytest.approx(0.25)
    assert not by_sts.passes(0.03)
    assert embedder(cosine_mean=0.98).passes(0.03)
    assert not embedder(cosine_mean=0.98).passes(0.005)


def test_a_form_whose_outputs_depend_on_batch_mates_is_marked() -> None:
    assert embedder(cosine_mean=1.0).batch_invariant
    assert embedder(cosine_mean=1.0, batch_mates=0.9995).batch_invariant
    assert not embedder(cosine_mean=1.0, batch_mates=0.9994).batch_invariant


def test_a_reranker_in_the_lowest_band_never_passes() -> None:
    one = RerankerFidelity(
        queries=1, cosine_mean=0.89, cosine_min=0.8, kendall_tau=1, top1_agreement=1
    )
    assert one.band == "rejected"
    assert not one.passes(0.5)
    assert one.loss == pytest.approx(0.11)


def test_equal_outputs_lose_nothing() -> None:
    same = np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)
    assert compare_embeddings(same, same).loss == pytest.approx(0.0, abs=1e-12)
    scores = [same[:, 0], same[:10, 1]]
    found = compare_scores(scores, scores)
    assert (found.cosine_mean, found.kendall_tau, found.top1_agreement) == pytest.approx((1, 1, 1))
    assert found.queries == 2


def test_cosine_figures_are_mean_first_percentile_and_least() -> None:
    reference = np.tile(vector(1, 0), (101, 1))
    other = reference.copy()
    other[7] = [0, 1]
    found = compare_embeddings(reference, other)
    assert found.cosine_min == pytest.approx(0.0)
    assert found.cosine_mean == pytest.approx(100 / 101)
    assert found.cosine_p1 == pytest.approx(np.quantile(cosines(reference, other), 0.01))

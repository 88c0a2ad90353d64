"""The plain measures of ``ondol eval task``, by hand and by their laws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.lab.evaluate.statistics import knowable, label_scores, set_scores, told_scores
from ondol.lab.evaluate.wording import bleu, longest_common, rouge_l, units

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)
PAIRS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from("xyzw")), min_size=1, max_size=30
)
SETS = st.lists(
    st.tuples(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5))), min_size=1, max_size=8
)


def test_bleu_by_hand() -> None:
    # "the" is said seven times and is twice in a reference (Papineni 2002, example 2): 2/7.
    assert bleu([("the the the the the the the", ["the cat is on the mat"])]) == 0.0
    said = "the cat sat on the mat today"
    known = ["the cat sat on the mat"]
    precisions = (6 / 7) * (5 / 6) * (4 / 5) * (3 / 4)
    assert bleu([(said, known)]) == pytest.approx(precisions**0.25)
    # Shorter than its reference: all precisions 1, the brevity penalty alone.
    assert bleu([("w b c d", ["w b c d e"])]) == pytest.approx(math.exp(1 - 5 / 4))
    # Of two references the nearer in length counts, and n-grams of both.
    assert bleu([("w b c d", ["w b c d e", "x w b c"])]) == pytest.approx(1.0)


def test_bleu_is_of_the_corpus_not_the_mean_of_its_texts() -> None:
    both = [("w b c d e", ["w b c d e"]), ("x y z v", ["x y q v"])]
    matched, possible = (5 + 3, 4 + 1, 3, 2), (9, 7, 5, 3)
    mean = math.exp(sum(math.log(m / p) for m, p in zip(matched, possible, strict=True)) / 4)
    assert bleu(both) == pytest.approx(mean)
    assert bleu([]) == 0.0


def test_rouge_l_by_hand() -> None:
    # Lin 2004, section 3.1: "police kill the gunman" shares 3 of 4 in order, "the gunman kill police" 2.
    reference = ["police killed the gunman"]
    assert rouge_l("police kill the gunman", reference) == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(0.5)
    assert rouge_l("nothing shared", ["at all", "in any"]) == 0.0
    assert rouge_l("", ["a b"]) == 0.0


def test_korean_is_compared_by_syllables() -> None:
    assert units("국물이 진하다!") == list("국물이진하다")
    assert rouge_l("국물이 진하다", ["국물은 진하다"]) == pytest.approx(5 / 6)


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_that_of_the_table(
    left: list[str], right: list[str]
) -> None:
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            grown = table[i][j] + 1 if one == other else 0
            table[i + 1][j + 1] = max(grown, table[i][j + 1], table[i + 1][j])
    assert longest_common(left, right) == table[-1][-1]


@given(st.lists(st.tuples(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=2))))
def test_overlap_is_a_share_of_any_text(pairs: list[tuple[str, list[str]]]) -> None:
    assert 0.0 <= bleu(pairs) <= 1.0 + 1e-9
    assert all(0.0 <= rouge_l(text, known) <= 1.0 for text, known in pairs)


def test_labels_by_hand() -> None:
    scores = label_scores([("p", "p"), ("p", "p"), ("p", "n"), ("n", "n"), ("m", "p")])
    assert scores is not None
    assert scores.accuracy == 0.6
    # F1: p 2*2/(3+3), n 2*1/(1+2), m 0.
    assert scores.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert label_scores([]) is None
    assert knowable([("p", "n"), ("m", "p")], {"p", "n"}) == [("p", "n")]


@given(PAIRS)
def test_label_scores_are_shares_and_one_only_where_all_is_right(
    pairs: list[tuple[str, str]],
) -> None:
    scores = label_scores(pairs)
    assert scores is not None
    assert 0.0 <= scores.macro_f1 <= 1.0
    right = all(truth == said for truth, said in pairs)
    assert (scores.accuracy == 1.0) == right == (scores.macro_f1 == 1.0)
    assert scores == label_scores(pairs[::-1])


def test_sets_by_hand() -> None:
    scores = set_scores([({"a", "b"}, {"b", "c", "d"}), ({"e"}, {"e"})])
    assert scores is not None
    assert scores.precision == 0.5
    assert scores.recall == pytest.approx(2 / 3)
    assert scores.f1 == pytest.approx(4 / 7)
    nothing = set_scores([(set(), set())])
    assert nothing is not None
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, None, 1.0)
    assert set_scores([]) is None
    assert told_scores("tag", None) == {}
    assert told_scores("tag", nothing)["tag_f1"] == 1.0


@given(SETS)
def test_set_scores_lie_between_precision_and_recall(
    pairs: list[tuple[set[int], set[int]]],
) -> None:
    scores = set_scores(pairs)
    assert scores is not None
    if scores.precision is not None and scores.recall is not None:
        low, high = sorted((scores.precision, scores.recall))
        assert low - 1e-9 <= scores.f1 <= high + 1e-9

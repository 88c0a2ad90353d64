"""Kinds of queries, means, and how sure they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.lab.evaluate.answer_evaluation import FIGURES, by_type, mean, score
from ondol.lab.evaluate.datasets import Query
from ondol.lab.evaluate.query_types import QueryType, query_type
from ondol.lab.evaluate.statistics import difference, interval


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("2019다12345", "citation"),
        ("대법원 2016다276177 판결", "citation"),
        ("2018다206899, 206905 판결의 요지를 알려줘", "citation"),
        ("민750", "citation"),
        ("민법 제750조의 내용이 무엇인가요?", "citation"),
        ("가등기담보 등에 관한 법률 제3조, 제4조", "citation"),
        ("주택법 제5조", "citation"),
        ("민법 제766조 제1항에 정한 ‘손해를 안다’는 것의 의미와 판단 기준", "question"),
        ("연차 휴가는 며칠인가요?", "question"),
        ("연차를 어떻게 신청하나", "question"),
        ("채무불이행책임을 지는지 여부", "question"),
        ("what are fees", "question"),
        ("Statins reduce cardiovascular risk in patients with diabetes", "question"),
        ("연차 휴가 일수", "keywords"),
        ("shuttle bus", "keywords"),
        ("", "keywords"),
    ],
)
def test_kinds_of_queries(query: str, kind: QueryType) -> None:
    assert query_type(query) == kind


@given(st.text(max_size=200))
def test_every_text_is_of_some_kind(text: str) -> None:
    assert query_type(text) in ("citation", "question", "keywords")


def test_figures_by_hand() -> None:
    found = score(Query("q", "연차 휴가", {"a": 1.0, "b": 1.0}), ["x", "a", "y", "z", "w", "b"])
    assert found.recall_at_1 == 0.0
    assert found.recall_at_5 == 0.5
    assert found.recall_at_10 == 1.0
    assert found.mrr_at_10 == 0.5
    assert found.ndcg_at_10 == pytest.approx((1 / 1.584963 + 1 / 2.807355) / (1 + 1 / 1.584963))


def test_means_by_kind_are_of_that_kind_only() -> None:
    right = score(Query("1", "민법 제750조", {"a": 1.0}), ["a"])
    wrong = score(Query("2", "연차 휴가", {"a": 1.0}), ["b"])
    groups = by_type([right, wrong])
    assert {kind: mean(group, "recall_at_1") for kind, group in groups.items()} == {
        "citation": 1.0,
        "keywords": 0.0,
    }
    assert all(mean([right, wrong], figure) == 0.5 for figure in FIGURES)


def test_an_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few, many = interval([0.0, 1.0] * 5), interval([0.0, 1.0] * 500)
    assert few.mean == many.mean == 0.5
    # The standard error of 1,000 fair coins is 0.0158; 1.96 of them to each side.
    assert many.low == pytest.approx(0.469, abs=0.006)
    assert many.high == pytest.approx(0.531, abs=0.006)
    assert few.low < many.low < many.high < few.high
    assert interval([0.0, 1.0] * 5) == few
    assert interval([]).mean == 0.0
    assert interval([0.3]).low == interval([0.3]).high == pytest.approx(0.3)


def test_pairing_sees_what_the_two_intervals_hide() -> None:
    base = [i / 100 for i in range(100)]
    other = [value + 0.01 for value in base]
    found = difference(base, other)
    assert found.mean == pytest.approx(0.01)
    assert found.low > 0
    assert found.share_better == 1.0
    assert difference(base, base).share_better == 0.5
    assert difference([], []).mean == 0.0
    with pytest.raises(ValueError, match="paired"):
        difference([1.0], [])

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.language.normalise import folded
from ondol.packs.legal.references import MAX_REFERENCES, references_of


def keys(text: str) -> list[str]:
    return [key for reference in references_of(text) for key in reference.keys]


@pytest.mark.parametrize(
    "text",
    [
        "민법 제750조",
        "민법 750조",
        "민법제750조",
        "민법750조",
        "민법 제 750 조",
        "민법 750",
        "민750",
        "민750의 요건",
        "민 750조",
        "민법의 제750조",
        "민법상 제750조에 따른 손해배상",
        "「민법」 제750조",
        "구 민법 제750조가 정한 불법행위",
    ],
)
def test_every_spelling_of_an_article_has_its_key(text: str) -> None:
    (reference,) = references_of(text)
    assert "ref민법제750조" in reference.keys
    assert reference.kind == "article"
    assert reference.named


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("근로기준법 제60조 제1항", "ref근로기준법제60조"),
        ("근기법 60조를", "ref근로기준법제60조"),
        ("상법 제391조의2", "ref상법제391조의2"),
        ("상법 391의2", "ref상법제391조의2"),
        (
            "비면책채권의 하나로 규정한 채무자 회생 및 파산에 관한 법률 제566조 제4호에서",
            "ref채무자회생및파산에관한법률제566조",
        ),
        ("채무자회생법 제566조", "ref채무자회생및파산에관한법률제566조"),
        ("가족수당 지급규정 제7조", "ref가족수당지급규정제7조"),
        ("독점규제 및 공정거래에 관한 법률 제3조의2", "ref독점규제및공정거래에관한법률제3조의2"),
    ],
)
def test_laws_by_their_full_and_short_names(text: str, key: str) -> None:
    assert key in keys(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019다12345", ["ref2019다12345"]),
        ("2019 다 12345 판결을 알려줘", ["ref2019다12345"]),
        ("대법원2016다276177판결", ["ref2016다276177"]),
        ("헌재 2020헌바12 결정", ["ref2020헌바12"]),
        ("87다카1116", ["ref1987다카1116"]),
        ("98두123", ["ref1998두123"]),
        ("2021 스 3", ["ref2021스3"]),
        ("2024스866, 867, 868", ["ref2024스866", "ref2024스867", "ref2024스868"]),
        ("2014다24785,24792,24808", ["ref2014다24785", "ref2014다24792", "ref2014다24808"]),
        ("2015다28968, 2015다28975(병합)", ["ref2015다28968", "ref2015다28975"]),
    ],
)
def test_case_numbers(text: str, expected: list[str]) -> None:
    assert keys(text) == expected


@pytest.mark.parametrize(
    "text",
    ["이상 3위", "형 20세", "2019년 5월 3일", "3조 5천억 원", "Article 5 of the GDPR", "상 3"],
)
def test_what_is_no_reference(text: str) -> None:
    assert references_of(text) == ()


def test_an_article_without_a_law_belongs_to_the_law_named_last() -> None:
    assert keys("민법 제130조, 제133조 및 제135조") == [
        "ref민법제130조",
        "ref민법제133조",
        "ref민법제135조",
    ]
    assert "ref상법제20조" in keys("상법 제10조에 따른 신고와 같은 법 제20조")
    assert "ref민법제12조" not in keys("민법 제1조와 회사 취업규칙 제12조")
    (bare,) = references_of("제12조 연차휴가")
    assert (bare.keys, bare.named) == (("ref제12조",), False)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("제750조 민법", "ref민법제750조"),
        ("제750조(민법)의 요건", "ref민법제750조"),
        ("60조 근기법", "ref근로기준법제60조"),
        ("제9조 약관의 규제에 관한 법률", "ref약관의규제에관한법률제9조"),
        ("제3조 제1항 가족수당 지급규정", "ref가족수당지급규정제3조"),
    ],
)
def test_the_law_may_stand_behind_the_article(text: str, key: str) -> None:
    (reference,) = references_of(text)
    assert reference.keys[0] == key
    assert reference.named


def test_the_law_behind_is_that_of_the_next_article_where_one_follows() -> None:
    first, second = references_of("제3조, 민법 제4조")
    assert (first.named, second.keys) == (False, ("ref민법제4조",))


def test_a_clause_belongs_to_the_article_before_it() -> None:
    (reference,) = references_of("근로기준법 제60조 제2항의 취지")
    assert reference.clause == 2
    (whole,) = references_of("근로기준법 제60조의 취지와 제2항")
    assert whole.clause == 0


def test_names_of_the_users_own() -> None:
    (reference,) = references_of("우리규정 제3조", names={"우리규정": "취업규칙"})
    assert reference.keys[0] == "ref취업규칙제3조"


def test_a_query_of_nothing_but_references_stays_bounded() -> None:
    assert len(references_of("민법 제1조, " * 500)) == MAX_REFERENCES


@given(st.text(alphabet="민법제조항의 0123456789다,.()·「」년\n", max_size=80))
def test_offsets_lie_in_the_text_and_keys_are_letters_and_digits(text: str) -> None:
    stored = folded(text)
    for reference in references_of(text):
        assert 0 <= reference.start < reference.end <= len(stored)
        assert reference.keys
        assert all(key.isalnum() and key.startswith("ref") for key in reference.keys)

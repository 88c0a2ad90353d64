"""Which law an article is of that is named without one, after what was said before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.packs.legal.references import laws_spoken_of, references_of


@pytest.mark.parametrize(
    ("before", "query", "wanted"),
    [
        ("민법 제750조는 무슨 뜻인가요?", "그럼 제751조는?", "ref민법제751조"),
        ("민법 제750조는 무슨 뜻인가요?", "751조는?", "ref민법제751조"),
        ("민750", "그러면 제751조 제1항은?", "ref민법제751조"),
        ("근기법 60조는?", "그리고 제61조는?", "ref근로기준법제61조"),
        ("민법에서는 불법행위를 어떻게 정하나요?", "그럼 제750조는?", "ref민법제750조"),
        ("취업규칙 제3조는?", "제4조는?", "ref취업규칙제4조"),
        ("민법 제750조와 상법은 어떻게 다른가요?", "그럼 제24조는?", "ref상법제24조"),
        ("민법 제750조는?", "같은 법 제751조는?", "ref민법제751조"),
        ("민법 제750조는?", "그럼 상법 제24조는?", "ref상법제24조"),
        ("민법 제750조는?", "그럼 제24조 상법은?", "ref상법제24조"),
        ("민법 제750조의 처리 방법은?", "그럼 제751조는?", "ref민법제751조"),
    ],
)
def test_the_law_spoken_of_last_is_meant(before: str, query: str, wanted: str) -> None:
    [found] = references_of(query, laws=laws_spoken_of(query, before))
    assert wanted in found.keys
    assert found.named


@pytest.mark.parametrize(
    "before",
    [
        "",
        "휴가는 며칠인가요?",
        "제750조는 무슨 뜻인가요?",
        "2019다12345 판결은?",
        "불법행위의 책임은 누가 지나요?",
        "법률에는 어떤 규정이 있나요?",
        "How often are laptops replaced?",
    ],
)
def test_where_none_was_named_none_is_made_up(before: str) -> None:
    query = "그럼 제751조는?"
    [found] = references_of(query, laws=laws_spoken_of(query, before))
    assert (found.keys[-1], found.named) == ("ref제751조", False)
    assert not any("민법" in key for key in found.keys)


@given(st.text(max_size=400), st.text(max_size=200))
def test_any_text_is_read(before: str, query: str) -> None:
    laws = laws_spoken_of(query, before)
    assert len(laws) == len(set(laws))
    assert all(one.keys for one in references_of(query, laws=laws))


def test_names_are_those_that_stand_there() -> None:
    assert laws_spoken_of("제5조는?", "민법에서는?", names={}) == ("민법", "")
    assert laws_spoken_of("제5조는?", "사규에서는?", names={"사규": "취업규칙"}) == ()
    assert laws_spoken_of("제5조는?", "사규 제3조는?", names={"사규": "취업규칙"})[0] == "취업규칙"

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.language.terms import find_terms


def words(text: str) -> list[str]:
    return [word for term in find_terms(text) for word in term.keywords]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019다12345", ["2019다12345"]),
        ("2019 다 12345", ["2019다12345"]),
        ("2015헌바12", ["2015헌바12"]),
        ("98두123", ["98두123"]),
        ("제60조", ["제60조"]),
        ("제 60 조", ["제60조"]),
        ("60조는", ["제60조"]),
        ("제60조의2 제3항", ["제60조의2", "제3항"]),
        ("제3조의 2가지", ["제3조", "2"]),
        ("3조 5천억", ["3", "5"]),
        ("3조원", ["3000000000000원", "3000000000000"]),
        ("2만 3천500원", ["23500원", "23500"]),
        ("13,500원", ["13500원", "13500"]),
        ("3.5%", ["3점5퍼센트", "3점5"]),
        ("3개월", ["3개월", "3"]),
        ("2019년도", ["2019년", "2019"]),
        ("2019. 5. 30.", ["20190530", "2019년", "5월", "30일"]),
        ("2019-05-30", ["20190530", "2019년", "5월", "30일"]),
        ("2019년 5월 30일", ["20190530", "2019년", "5월", "30일"]),
        ("The patients' tumors were stopped", ["patient", "tumor", "stop"]),
        ("BRCA1-mutant", ["brca1", "mutant", "brca1mutant"]),
        ("U.S. don't", ["us", "dont"]),
        ("甲이 寄宿舍", ["甲", "寄宿舍"]),
    ],
)
def test_one_spelling_for_each_term(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_terms_stand_where_they_say() -> None:
    text = "대법원 2019. 5. 30. 선고 2016다276177 판결"
    assert [text[t.start : t.end] for t in find_terms(text)] == ["2019. 5. 30.", "2016다276177"]


@given(st.text(max_size=60))
def test_every_keyword_is_one_token_to_fts5(text: str) -> None:
    keywords = words(text)
    with sqlite3.connect(":memory:") as database:
        database.execute(
            "create virtual table f using fts5(t, tokenize='unicode61 remove_diacritics 0')"
        )
        database.execute("create virtual table v using fts5vocab(f, 'instance')")
        database.execute("insert into f values (?)", (" ".join(keywords),))
        (count,) = database.execute("select count(*) from v").fetchone()
    database.close()
    assert count == len(keywords)


def test_endless_runs_stay_bounded() -> None:
    for unit in ("a", "1", "1,111,", "a-", "寄"):
        assert all(0 < len(word) <= 64 for word in words(unit * 50_000))

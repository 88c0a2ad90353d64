from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.language.normalise import folded
from ondol.language.terms import find_terms

SPELLINGS = [
    ("2019다12345", ["2019 다 12345", "2019다 12345", "2019 다12345", "２０１９다１２３４５"]),
    ("제60조의2", ["제 60 조의 2", "제６０조의２", "제60조 의2"]),
    ("20190530", ["2019. 5. 30.", "２０１９．５．３０．", "2019-05-30", "2019\u201105\u201130"]),
    ("13500원", ["13,500원", "１３，５００원", "13500 원", "1만 3,500원", "1만3500원"]),
    ("50000000원", ["5천만 원", "5,000만원", "50,000,000원", "5000만 원을"]),
    ("350000000원", ["3억 5천만 원", "3억5,000만원", "3.5억원"]),
    ("api", ["API", "ＡＰＩ", "Api를"]),
    ("brca1mutant", ["BRCA1-mutant", "ＢＲＣＡ１－ｍｕｔａｎｔ"]),
]


@pytest.mark.parametrize(("keyword", "spellings"), SPELLINGS)
def test_every_spelling_gives_its_keyword(keyword: str, spellings: list[str]) -> None:
    for spelling in (keyword, *spellings):
        for form in ("NFC", "NFD"):
            text = folded(unicodedata.normalize(form, f"그 {spelling}"))
            found = [word for term in find_terms(text) for word in term.keywords]
            assert keyword in found, (spelling, form, found)


def test_what_looks_like_an_amount_and_is_none() -> None:
    for text, expected in {"3만 원고의 청구": ["3"], "3조 5천억": ["3", "5"]}.items():
        assert [w for t in find_terms(text) for w in t.keywords] == expected


@given(st.text(max_size=50))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)

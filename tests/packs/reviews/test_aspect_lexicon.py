from __future__ import annotations

import tomllib

import pytest

from ondol.packs.reviews.aspect_lexicon import AspectLexicon, lexicon_faults, pieces
from ondol.tasks.pack_library import shipped_folder

TABLE = tomllib.loads((shipped_folder() / "reviews/lexicons/aspects.toml").read_text("utf-8"))
LEXICON = AspectLexicon(TABLE)


def said(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for clause in LEXICON.clauses(text):
        for aspect in clause.aspects:
            found[aspect] = clause.polarity
    return found


@pytest.mark.parametrize(
    ("text", "aspects"),
    [
        ("맛은 좋은데 배달이 너무 늦어요", {"taste": 1, "delivery": -1}),
        ("양이 푸짐하고 사장님이 친절해요", {"portion": 1, "service": 1}),
        ("사장님이 친절하지 않아요", {"service": -1}),
        ("The food was delicious but the staff was rude.", {"taste": 1, "service": -1}),
        ("The staff was not friendly.", {"service": -1}),
        ("가격이 비싸요", {"price": -1}),
        ("ㅋㅋㅋ", {}),
    ],
)
def test_aspects_and_their_polarity(text: str, aspects: dict[str, int]) -> None:
    assert said(text) == aspects


def test_a_bare_judgment_speaks_of_what_stood_before() -> None:
    clauses = list(LEXICON.clauses("국물은요. 별로예요."))
    assert [(clause.aspects, clause.polarity) for clause in clauses][-1] == (("taste",), -1)


def test_a_text_is_cut_where_it_turns() -> None:
    assert len(pieces("맛있는데 양이 적어요. 배달은 빨라요")) == 3
    assert pieces("") == []
    assert pieces("!!! ~~~") == []


def test_a_table_that_lacks_something_is_told() -> None:
    assert lexicon_faults(TABLE, ("ko", "en")) == []
    assert lexicon_faults({}, ("ko",))
    bad = {"aspects": {"taste": {"ko": ["맛"]}}, "praise": {"ko": []}, "blame": {"ko": [""]}}
    assert {key for key, _ in lexicon_faults(bad, ("ko",))} == {"aspects.taste.title", "blame.ko"}

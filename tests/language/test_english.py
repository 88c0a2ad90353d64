from __future__ import annotations

import pytest

from ondol.language.english import STOP_WORDS, stem


@pytest.mark.parametrize(
    "family",
    [
        ("study", "studies", "studied", "studying"),
        ("stop", "stops", "stopped", "stopping"),
        ("hope", "hopes", "hoped", "hoping"),
        ("class", "classes"),
        ("relate", "relates", "related", "relating"),
        ("induce", "induces", "induced", "inducing"),
        ("significant", "significantly"),
    ],
)
def test_forms_of_a_word_meet(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


@pytest.mark.parametrize("word", ["was", "p53", "α", "virus", "bring", "sing", "analysis", "naïve"])
def test_these_stay_as_they_are(word: str) -> None:
    assert stem(word) == word


def test_stop_words_are_lower_case() -> None:
    assert all(word == word.lower() for word in STOP_WORDS)

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from ondol.core.errors import InvalidInput, NotFound
from ondol.language.dictionary import MAX_WORDS, Dictionary, checked_words, read_dictionary
from ondol.language.korean import KeywordAnalyzer


@pytest.fixture(scope="module")
def analyzer() -> KeywordAnalyzer:
    return KeywordAnalyzer(threads=1)


@pytest.mark.parametrize(
    "text",
    ["온돌이음", "온돌이음은", "온돌이음에서의", "그 온돌이음이란", "(온돌이음)", "온돌이음들이"],
)
def test_a_word_stays_whole_with_any_particle(analyzer: KeywordAnalyzer, text: str) -> None:
    words = Dictionary(["온돌이음"])
    for form in ("NFC", "NFD"):
        found = analyzer.tokens(unicodedata.normalize(form, text), dictionary=words)
        assert "온돌이음" in found
        assert "온돌" not in found


def test_a_blank_inside_a_word_may_be_missing(analyzer: KeywordAnalyzer) -> None:
    words = Dictionary(["전세 사기", "K-온돌"])
    assert "전세사기" in analyzer.tokens("전세사기를 당하다", dictionary=words)
    assert "전세사기" in analyzer.query_tokens("전세 사기 피해", dictionary=words)
    assert "k온돌" in analyzer.tokens("Ｋ-온돌을 깔다", dictionary=words)


def test_letters_that_are_part_of_another_word_are_left_alone(analyzer: KeywordAnalyzer) -> None:
    words = Dictionary(["전세", "API"])
    assert "전세" not in analyzer.tokens("전세계가", dictionary=words)
    assert "api" not in analyzer.tokens("APIs2", dictionary=words)
    assert "전세" in analyzer.tokens("전세를", dictionary=words)


def test_without_words_nothing_changes(analyzer: KeywordAnalyzer) -> None:
    text = "민법 제750조의 손해배상 13,500원"
    assert analyzer.tokens(text, dictionary=Dictionary()) == analyzer.tokens(text)
    assert Dictionary().digest == ""
    assert Dictionary(["가나", "다라"]).digest == Dictionary(["다라", "가나"]).digest
    assert Dictionary(["가나"]).digest != Dictionary(["다라"]).digest


def test_the_longest_word_wins() -> None:
    words = Dictionary(["연차", "연차 휴가", "연차 휴가 수당"])
    (term,) = words.find("연차 휴가수당을", ())
    assert term.keywords == ("연차휴가수당",)
    (term,) = words.find("연차휴가를", ())
    assert term.keywords == ("연차휴가",)


def test_files_of_either_form(tmp_path: Path) -> None:
    lines = tmp_path / "d.txt"
    lines.write_text("# 우리말\n온돌이음\n전세 사기,x\n\n온돌이음\n", "utf-8")
    assert read_dictionary(lines) == ("온돌이음", "전세 사기")
    toml = tmp_path / "d.toml"
    toml.write_text('words = ["온돌이음"]\n', "utf-8")
    assert read_dictionary(toml) == ("온돌이음",)
    for text, said in {
        "words = 1": "no list",
        "words = [1]": "no text",
        "words = [": "TOML",
        'words = ["가"]': "no word of 2",
    }.items():
        toml.write_text(text, "utf-8")
        with pytest.raises(InvalidInput, match=said):
            read_dictionary(toml)
    with pytest.raises(NotFound):
        read_dictionary(tmp_path / "none.txt")
    with pytest.raises(InvalidInput, match="at most"):
        checked_words(["낱말"] * (MAX_WORDS + 1), source="x")


def test_thousands_of_words_are_found_at_once() -> None:
    words = Dictionary([f"낱말{number}가" for number in range(MAX_WORDS)])
    assert [t.keywords for t in words.find("낱말4321가를 낱말99999가", ())] == [("낱말4321가",)]

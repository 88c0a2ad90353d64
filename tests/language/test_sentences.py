from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.language.sentences import split_sentences

PIECES = st.sampled_from(
    ["가", "다.", "요!", "까?", "…", "...", " ", "\n", "\n\n", "제3조", "(정의)", "① ", "1. ", "- ", "# ", "3.5", "2019. 5. 30.",
     "e.g. ", "No. 5", "The ", "a", "”", "\"", ")", "|", "```", "\t", "제2장 총칙\n", "😀", "\u3000", "나. "]
)  # fmt: skip


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("가격은 13,500원이다. 3.5% 올랐다.", ["가격은 13,500원이다.", "3.5% 올랐다."]),
        ("감사합니다.또 올게요!맛있어요", ["감사합니다.", "또 올게요!", "맛있어요"]),
        ("그런가요? 네… 그렇다.", ["그런가요?", "네… 그렇다."]),
        ("“갔다.”라고 말했다. “왔다.” 그는 웃었다.", ["“갔다.”라고 말했다.", "“왔다.”", "그는 웃었다."]),
        ("대법원 2019. 5. 30. 선고 2016다276177 판결은 옳다.", ["대법원 2019. 5. 30. 선고 2016다276177 판결은 옳다."]),
        ("제3조. 목적은 이렇다. 끝이다.", ["제3조. 목적은 이렇다.", "끝이다."]),
        ("1. 항목은 이렇다. 다음.", ["1. 항목은 이렇다.", "다음."]),
        ("가.나.다 file.txt example.com 끝", ["가.나.다 file.txt example.com 끝"]),
        ("No. 5 is here. Dr. Smith, e.g. him, left.", ["No. 5 is here.", "Dr. Smith, e.g. him, left."]),
        ("It cost $3.50 in 2019. The U.S. Army paid.", ["It cost $3.50 in 2019.", "The U.S. Army paid."]),
        ("He asked (why?). She left.[1] Done.", ["He asked (why?).", "She left.[1]", "Done."]),
        ("① 첫째다. <개정 2020. 1. 1.> ② 둘째다.", ["① 첫째다.", "<개정 2020. 1. 1.>", "② 둘째다."]),
    ],
)  # fmt: skip
def test_boundaries(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_hard_line_breaks_do_not_end_a_sentence() -> None:
    text = (
        "사용자는 근로계약을\n체결한\n다. 그러나 제2조(정의)에\n따른다.\nA line that\nwraps here."
    )
    assert sentences(text) == [
        "사용자는 근로계약을\n체결한\n다.",
        "그러나 제2조(정의)에\n따른다.",
        "A line that\nwraps here.",
    ]


def test_structure_ends_a_sentence() -> None:
    text = "# 제목\n본문\n- 하나\n- 둘\n제1장 총칙\n제1조(목적) 이 규칙은\n가. 하나\n나. 둘\n다. 셋\n| a | b |\n뒤"
    assert sentences(text) == [
        "# 제목", "본문", "- 하나", "- 둘", "제1장 총칙", "제1조(목적) 이 규칙은",
        "가. 하나", "나. 둘", "다. 셋", "| a | b |", "뒤",
    ]  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=80))
def test_spans_cover_all_ink_without_overlap(text: str) -> None:
    covered = [False] * len(text)
    last = 0
    for start, end in split_sentences(text):
        assert last <= start < end <= len(text)
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        covered[start:end] = [True] * (end - start)
        last = end
    assert all(seen or character.isspace() for seen, character in zip(covered, text, strict=True))


@pytest.mark.parametrize("unit", ["가", "가 ", ". ", "“", "1. ", "제1조("])
def test_a_long_single_line_is_split_in_one_pass(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    spans = split_sentences(text)
    assert sum(end - start for start, end in spans) <= len(text)

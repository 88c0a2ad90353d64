from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ondol.core.chunk_options import STRATEGIES, ChunkStrategy
from ondol.core.errors import InvalidInput
from ondol.core.types import Page, Passage, ReadDocument
from ondol.documents.chunking.chunking import chunk

PIECES = st.sampled_from(
    ["가나다라마바사", "했다. ", "이것은 문장이다. ", "\n", "\n\n", "# 큰 제목\n", "## 작은 제목\n", "제3장 휴가\n",
     "제12조(연차휴가) ", "제13조(병가) ", "제14조(보칙) ", "① ", "\n1. ", "\n가. ", "【주 문】\n", "【이 유】 ", "\n이 유\n",
     "[1] ", "- ", "word ", "A sentence. ", "```\n", "x" * 90, " " * 30, "😀", "e\u0301"]
)  # fmt: skip


def cut(
    text: str,
    target: int = 400,
    overlap: int = 60,
    pages: tuple[Page, ...] = (),
    strategy: ChunkStrategy = "auto",
) -> list[Passage]:
    document = ReadDocument("d", "", text, pages)
    return chunk(document, target_chars=target, overlap_chars=overlap, strategy=strategy)


@given(
    st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=300),
    st.integers(1, 120),
    st.integers(0, 60),
    st.sampled_from([one for one in STRATEGIES if one != "record"]),
)
@example("이것은 문장이다. 가나다라마바사가나다라마바사\n\n했다. 가나다라마바사", 24, 14, "heading")
def test_passages_are_exact_bounded_and_cover_all_ink(
    text: str, target: int, overlap: int, strategy: ChunkStrategy
) -> None:
    overlap = min(overlap, target - 1)
    passages = cut(text, target, overlap, strategy=strategy)
    covered = [False] * len(text)
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]
        assert passage.text.strip() == passage.text != ""
        assert len(passage.text) <= 2 * target
        assert passage.parent is not None
        assert passage.parent[0] <= passage.start < passage.end <= passage.parent[1] <= len(text)
        covered[passage.start : passage.end] = [True] * len(passage.text)
    assert all(seen or character.isspace() for seen, character in zip(covered, text, strict=True))
    assert [p.start for p in passages] == sorted({p.start for p in passages})
    for one, following in pairwise(passages):
        assert one.end - following.start <= overlap
        assert following.end > one.end


def test_a_short_record_stays_whole() -> None:
    text = "이 문장은 짧다. " * 60
    assert [p.text for p in cut(text)] == [text.strip()]


def test_sentences_stay_whole_and_repeat_as_overlap() -> None:
    sentences = [
        f"{number}번째 문장은 마흔 글자쯤 되는 보통 길이의 한국어 문장이다." for number in range(40)
    ]
    text = " ".join(sentences)
    passages = cut(text, 200, 60)
    for passage in passages:
        assert passage.text.startswith(tuple(sentences))
        assert passage.text.endswith("문장이다.")
        assert len(passage.text) <= 300
    assert all(b.start < a.end for a, b in pairwise(passages))


def test_two_articles_never_share_a_passage_unless_both_are_tiny() -> None:
    long = "근로자는 이 조에서 정한 바에 따라 휴가를 신청할 수 있고 회사는 이를 보장한다. " * 4
    text = f"제3장 휴가\n제12조(연차휴가) {long}\n제13조(병가) {long}\n제14조(보칙) 짧다.\n제15조(시행) 짧다."
    passages = cut(text)
    assert [p.heading for p in passages] == [
        "제3장 휴가 > 제12조(연차휴가)",
        "제3장 휴가 > 제13조(병가)",
        "제3장 휴가",
    ]
    assert passages[0].text.startswith("제3장 휴가\n제12조")
    assert passages[2].text == "제14조(보칙) 짧다.\n제15조(시행) 짧다."


def test_markdown_headings_make_the_path_and_code_is_no_heading() -> None:
    body = "This is a sentence of an ordinary length that fills the section. " * 5
    text = f"# Guide\n\n{body}\n\n## Install\n\n```sh\n# not a heading\n```\n{body}\n\n# Other\n\n{body}"
    assert [p.heading for p in cut(text, 500, 0)] == ["Guide", "Guide > Install", "Other"]


def test_blank_lines_are_better_joints_than_sentences() -> None:
    paragraph = "문단의 문장이 여기에 있다. " * 10
    text = f"{paragraph}\n\n{paragraph}\n\n{paragraph}\n\n{paragraph}\n\n{paragraph}"
    assert all(p.text == paragraph.strip() for p in cut(text, 250, 0))


def test_page_is_where_the_passage_starts() -> None:
    first, second = "첫 쪽의 문장이다. " * 60, "둘째 쪽의 문장이다. " * 60
    pages = (Page(1, 0, len(first)), Page(2, len(first) + 2, len(first) + 2 + len(second)))
    passages = cut(f"{first}\n\n{second}", 200, 0, pages)
    assert {p.page for p in passages if p.end <= len(first)} == {1}
    assert {p.page for p in passages if p.start > len(first)} == {2}
    assert cut("글이다.")[0].page is None


def test_an_endless_line_is_cut_at_spaces_where_it_has_them() -> None:
    assert all(len(p.text) == 400 for p in cut("a" * 1_000_000))
    assert all(set(p.text.split()) == {"word"} for p in cut("word " * 10_000))


def test_impossible_lengths_are_refused() -> None:
    for target, overlap in ((0, 0), (10, 10), (10, -1)):
        with pytest.raises(InvalidInput, match="do not fit"):
            cut("x", target, overlap)


def test_white_space_has_no_passages() -> None:
    assert cut(" \n\t\u3000") == []

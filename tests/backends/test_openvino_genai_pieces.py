"""Long texts go to the tokenizer in pieces: nothing lost, cut only where a new word begins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ondol.backends.openvino_genai_child import pieces_of

WORDS = st.lists(st.text("ab가한1.<|>\n ", min_size=1, max_size=40), max_size=30)


@given(WORDS, st.integers(0, 300))
def test_pieces_join_to_the_text_and_are_short(words: list[str], times: int) -> None:
    text = " ".join(words) * times
    pieces = list(pieces_of(text))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= 8_192 for piece in pieces)


def test_a_piece_begins_with_the_blank_before_a_word() -> None:
    pieces = list(pieces_of("온돌은 따뜻하다. " * 2_000))
    assert len(pieces) > 1
    assert all(piece.startswith(" 따뜻하다") for piece in pieces[1:])


def test_a_text_without_words_is_cut_anywhere() -> None:
    assert [len(piece) for piece in pieces_of("가" * 5_000)] == [2_048, 2_048, 904]
    assert list(pieces_of("")) == []

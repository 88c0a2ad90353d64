from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ondol.language.normalise import normalise

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)


def test_stored_form() -> None:
    assert normalise("a\r\nb\rc\u2028d\x85e") == "a\nb\nc\nd\ne"
    assert normalise("a\x00b") == "ab"
    assert normalise("한") == "한"
    assert normalise("x\ud800y") == "x\ufffdy"
    assert normalise("  keep\t this \ufeff…") == "  keep\t this \ufeff…"


@given(ANY_TEXT)
def test_is_idempotent_and_storable(text: str) -> None:
    stored = normalise(text)
    assert normalise(stored) == stored
    assert unicodedata.is_normalized("NFC", stored)
    assert "\x00" not in stored
    stored.encode("utf-8")

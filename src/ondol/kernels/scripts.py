"""Tells which script a character is written in, as far as trimming a vocabulary needs it.

Ranges are those of the Unicode blocks (https://www.unicode.org/Public/UCD/latest/ucd/Blocks.txt).
Hanja are the ideographs of KS X 1001, the Korean standard set, which Python knows as ``euc_kr``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

Script = Literal[
    "common", "hangul", "hanja", "latin", "latin-extended", "greek", "cyrillic", "kana", "han"
]

DEFAULT_SCRIPTS: tuple[Script, ...] = ("common", "hangul", "hanja", "latin")
"""What Korean and English texts are written in; ``latin`` is A to Z."""

_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF)),
    "latin": ((0x41, 0x5A), (0x61, 0x7A)),
    "latin-extended": ((0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF)),
    "han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
}


def script_test(scripts: Sequence[Script]) -> Callable[[str], bool]:
    """Return a test whether one character is of one of ``scripts``."""

    @cache
    def belongs(character: str) -> bool:
        return any(_is_of(character, script) for script in scripts)

    return belongs


def _is_of(character: str, script: Script) -> bool:
    if script == "common":
        return _is_common(character)
    if script == "hanja":
        return _is_of(character, "han") and _in_korean_standard(character)
    point = ord(character)
    return any(first <= point <= last for first, last in _RANGES[script])


def _is_common(character: str) -> bool:
    """Whether it is a digit 0 to 9, punctuation, a space, a symbol, or a sign that joins them."""
    category = unicodedata.category(character)
    if category == "Nd":
        return character.isascii()
    return category[0] in "NPSZ" or category == "Cf" or character in "\ufe0e\ufe0f"


def _in_korean_standard(character: str) -> bool:
    try:
        character.encode("euc_kr")
    except UnicodeEncodeError:
        return False
    return True

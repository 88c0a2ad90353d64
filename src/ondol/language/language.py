"""Which of our languages a text is in, by the share of scripts.

A cheap guess for choosing prompts, analysers and rerankers. It knows scripts, not vocabularies:
any text in Latin letters counts as English.
"""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["ko", "en", "other"]

HANGUL = "가-힣ᄀ-ᇿㄱ-ㆎꥠ-꥿ힰ-퟿"
_HANGUL = re.compile(f"[{HANGUL}]")
_LATIN = re.compile("[A-Za-zÀ-ÖØ-öø-ɏ]")
_LETTER = re.compile(r"[^\W\d_]")

_SAMPLE = 2000
_KOREAN_SHARE = 0.2  # Korean prose names products and laws in Latin letters; one syllable says much
_LATIN_SHARE = 0.6


def detect(text: str) -> Language:
    """Return ``ko`` from a fifth of Hangul letters on, ``en`` for mostly Latin, else ``other``.

    Reads at most 6,000 characters (head, middle, tail), so the cost does not grow with the text.
    """
    sample = _sample(text)
    letters = len(_LETTER.findall(sample))
    if letters == 0:
        return "other"
    if len(_HANGUL.findall(sample)) >= _KOREAN_SHARE * letters:
        return "ko"
    if len(_LATIN.findall(sample)) >= _LATIN_SHARE * letters:
        return "en"
    return "other"


def has_hangul(text: str) -> bool:
    """Return whether any Hangul letter stands in ``text``."""
    return _HANGUL.search(text) is not None


def _sample(text: str) -> str:
    if len(text) <= 3 * _SAMPLE:
        return text
    middle = len(text) // 2
    return text[:_SAMPLE] + text[middle : middle + _SAMPLE] + text[-_SAMPLE:]

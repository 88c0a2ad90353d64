"""Whether Hangul text reads like Korean, or is another script's bytes behind Hangul codes.

Two signs: real Korean keeps to the 2,350 syllables of KS X 1001 (garbage spreads over 11,172), and
its commonest syllables make up some two fifths of any text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SYLLABLE = re.compile("[가-힣]")
_COMMON = frozenset(
    "이다는에의을하가고은지로사한기를정시대자리서인도해어스수부나일아으장전제주구과조보들그"
    "관여라성원동비상있만게니할되등생공경여유소신용합요무마오진계미방안교선법문국"
)
_SAMPLE = 20_000
_FEW = 30
_RARE_SHARE = 0.12
_COMMON_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class HangulShape:
    """Syllables seen, and the shares of them that are common and outside KS X 1001."""

    syllables: int
    common: float
    rare: float

    @property
    def garbled(self) -> bool:
        """Whether there are enough syllables to say that this is not Korean."""
        if self.syllables < _FEW:
            return False
        return self.rare > _RARE_SHARE or self.common < _COMMON_SHARE


def hangul_shape(text: str) -> HangulShape:
    """Return the shape of the first 20,000 characters' Hangul."""
    found: Sequence[str] = _SYLLABLE.findall(text[:_SAMPLE])
    if not found:
        return HangulShape(0, 0.0, 0.0)
    common = sum(syllable in _COMMON for syllable in found)
    rare = sum(not _in_ks_x_1001(syllable) for syllable in found)
    return HangulShape(len(found), common / len(found), rare / len(found))


def _in_ks_x_1001(syllable: str) -> bool:
    try:
        syllable.encode("euc_kr")
    except UnicodeEncodeError:
        return False
    return True

"""Whether Hangul text reads like Korean, or is another script's bytes behind Hangul codes.

Two signs: real Korean keeps to the 2,350 syllables of KS X 1001 (garbage spreads over 11,172), and
its commonest syllables make up some two fifths of any text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SYLLABLES = re.compile("[가-힣]+")
_COMMON = frozenset(
    "이다는에의을하가고은지로사한기를정시대자리서인도해어스수부나일아으장전제주구과조보들그"
    "관여라성원동비상있만게니할되등생공경여유소신용합요무마오진계미방안교선법문국"
)
_NOT_COMMON = dict.fromkeys(map(ord, _COMMON))
_MADE_UP_BYTES = 8  # EUC-KR writes a syllable outside KS X 1001 as four letters (its annex 3)
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
    def odd(self) -> bool:
        """Whether too many syllables are none that Korean writes, however few there are."""
        return self.rare > _RARE_SHARE

    @property
    def garbled(self) -> bool:
        """Whether there are enough syllables to say that this is not Korean."""
        if self.syllables < _FEW:
            return False
        return self.odd or self.common < _COMMON_SHARE


def hangul_shape(text: str) -> HangulShape:
    """Return the shape of the first 20,000 characters' Hangul."""
    found = "".join(_SYLLABLES.findall(text[:_SAMPLE]))
    count = len(found)
    if not count:
        return HangulShape(0, 0.0, 0.0)
    common = count - len(found.translate(_NOT_COMMON))
    rare = (len(found.encode("euc_kr")) - 2 * count) // (_MADE_UP_BYTES - 2)
    return HangulShape(count, common / count, rare / count)

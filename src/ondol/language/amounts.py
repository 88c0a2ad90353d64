"""Sums of won in one spelling: ``5천만 원``, ``5,000만원`` and ``50,000,000원`` are ``50000000원``.

Digits with the counting words 십 백 천 만 억 조, ending in 원; sums spelled without digits are left
to the morphemes. Pure.
"""

from __future__ import annotations

import re
from decimal import Decimal

_SMALL = {"십": 10, "백": 100, "천": 1_000}
_LARGE = {"만": 10_000, "억": 10**8, "조": 10**12}
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d{1,4})?|\d{1,12}(?:\.\d{1,4})?"
_STEP = rf"(?:{_NUMBER})\s?(?:[십백천]?[만억조]|[십백천])"

PATTERN = rf"(?<![\d.,])(?:{_STEP}\s?){{1,6}}(?:(?:{_NUMBER})\s?)?원(?![고심칙인장리본래활만])"
"""A sum with at least one counting word, as a regular expression without groups."""

_PARTS = re.compile(rf"({_NUMBER})\s?([십백천]?)([만억조]?)")


def won(amount: str) -> int:
    """Return the won of a text that matches ``PATTERN``: ``3억 5천만 원`` is 350,000,000."""
    total = section = Decimal(0)
    for number, small, large in _PARTS.findall(amount):
        section += Decimal(number.replace(",", "")) * _SMALL.get(small, 1)
        if large:
            total += section * _LARGE[large]
            section = Decimal(0)
    return int(total + section)

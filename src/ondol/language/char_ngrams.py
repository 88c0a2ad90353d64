"""Runs of characters as hashed features: what short, misspelled, spaceless reviews are told apart by.

All texts of a batch are hashed at once in numpy, so that five thousand reviews take a fraction of a
second. Equal texts give equal features on every machine: no seed, no dictionary. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_REPEATED = re.compile(r"(.)\1{2,}")
_BLANKS = re.compile(r"\s+")
_DIGITS = re.compile(r"\d")
_MOST_CHARS = 2_000
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
_SEPARATOR = "\0"


@dataclass(frozen=True, slots=True)
class Grams:
    """The features of ``texts`` texts: feature ``features[i]`` occurs in text ``rows[i]``.

    ``scale`` (texts,) is one over the root of each text's count, so that long texts weigh no more.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.int64]
    scale: NDArray[np.float64]

    @property
    def texts(self) -> int:
        return len(self.scale)


def hashed_grams(
    texts: Sequence[str], *, bits: int = 15, orders: Sequence[int] = (1, 2, 3, 4)
) -> Grams:
    """Return the character n-grams of ``texts`` hashed to ``bits`` bits; empty texts have none."""
    joined = _SEPARATOR + _SEPARATOR.join(plain_form(text) for text in texts) + _SEPARATOR
    codes = np.frombuffer(joined.encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)
    breaks = codes == 0
    owner = np.cumsum(breaks) - 1
    rows: list[NDArray[np.int64]] = []
    features: list[NDArray[np.int64]] = []
    for order in orders:
        size = len(codes) - order + 1
        if size <= 0:
            continue
        mixed = np.full(size, order, dtype=np.uint64)
        whole = np.ones(size, dtype=bool)
        for place in range(order):
            piece = codes[place : place + size]
            mixed = (mixed ^ piece) * np.uint64(_FACTORS[place % 4])
            mixed ^= mixed >> np.uint64(29)
            whole &= ~breaks[place : place + size]
        rows.append(owner[:size][whole])
        features.append((mixed[whole] >> np.uint64(64 - bits)).astype(np.int64))
    every = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    counts = np.bincount(every, minlength=len(texts))[: len(texts)]
    return Grams(
        rows=every,
        features=np.concatenate(features) if features else np.zeros(0, dtype=np.int64),
        scale=1.0 / np.sqrt(np.maximum(counts, 1)),
    )


def plain_form(text: str) -> str:
    """Return ``text`` as its features see it: folded, digits alike, laughter and cries shortened."""
    folded = unicodedata.normalize("NFKC", text[:_MOST_CHARS]).lower().replace(_SEPARATOR, " ")
    short = _REPEATED.sub(r"\1\1", _DIGITS.sub("0", folded))
    return f" {_BLANKS.sub(' ', short).strip()} "

"""Ranking and answer metrics as pure functions.

nDCG and MRR after Järvelin & Kekäläinen (2002) and TREC practice; exact match and token F1 after
SQuAD (Rajpurkar et al. 2016), for Korean by characters as KorQuAD 1.0 does.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

_PUNCTUATION = re.compile(r"[^\w%.]|(?<!\d)\.|\.(?!\d)|_")


def ndcg(ranked: Sequence[str], relevant: Mapping[str, float], *, k: int = 10) -> float:
    """Return nDCG@k with gains as judged."""
    dcg = sum(relevant.get(d, 0.0) / math.log2(i + 2) for i, d in enumerate(ranked[:k]))
    ideal = sorted(relevant.values(), reverse=True)[:k]
    best = sum(gain / math.log2(i + 2) for i, gain in enumerate(ideal))
    return dcg / best if best else 0.0


def recall(ranked: Sequence[str], relevant: Mapping[str, float], *, k: int = 10) -> float:
    """Return the share of relevant documents among the first ``k``."""
    wanted = {d for d, gain in relevant.items() if gain > 0}
    return len(wanted & set(ranked[:k])) / len(wanted) if wanted else 0.0


def reciprocal_rank(ranked: Sequence[str], relevant: Mapping[str, float], *, k: int = 10) -> float:
    """Return 1 / rank of the first relevant document among the first ``k``, or 0."""
    return next((1 / (i + 1) for i, d in enumerate(ranked[:k]) if relevant.get(d, 0) > 0), 0.0)


def normalise_answer(text: str) -> str:
    """Fold case, width, punctuation, thousands separators and white space."""
    folded = unicodedata.normalize("NFKC", text).lower()
    folded = re.sub(r"(?<=\d),(?=\d{3})", "", folded)
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether the whole answer equals one of ``golds`` after folding."""
    return normalise_answer(answer) in {normalise_answer(gold) for gold in golds}


def contains(answer: str, golds: Sequence[str]) -> bool:
    """Whether one of ``golds`` stands in the answer after folding, white space aside."""
    squeezed = normalise_answer(answer).replace(" ", "")
    return any(_stands_in(normalise_answer(gold).replace(" ", ""), squeezed) for gold in golds)


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """Return the best F1 over ``golds``: by words, or by characters where Hangul occurs."""
    return max((_f1(_units(answer), _units(gold)) for gold in golds), default=0.0)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the ``share`` (0…1) quantile by linear interpolation; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _stands_in(gold: str, answer: str) -> bool:
    """A gold that begins or ends with a digit must not be part of a longer number."""
    if not gold:
        return False
    before = r"(?<![\d.])" if gold[0].isdigit() else ""
    after = r"(?!\d)" if gold[-1].isdigit() else ""
    return re.search(before + re.escape(gold) + after, answer) is not None


def _units(text: str) -> list[str]:
    words = normalise_answer(text).split()
    if any("가" <= char <= "힣" for word in words for char in word):
        return [char for word in words for char in word]
    return [word for word in words if word not in ("a", "an", "the")]


def _f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    shared = sum((Counter(answer) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, found = shared / len(answer), shared / len(gold)
    return 2 * precision * found / (precision + found)

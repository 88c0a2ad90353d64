"""How a text stands to references: right or not, and how much of their wording it shares.

Exact match and token F1 after SQuAD (Rajpurkar et al. 2016), for Korean by characters as KorQuAD 1.0
does; BLEU over a corpus and ROUGE-L over one pair. Units are words for English and the single
syllables for Korean, white space aside: Korean words carry their particles, so whole words would
hardly ever agree. Pure.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from ondol.language.language import has_hangul

ORDERS = 4
"""The longest n-grams that BLEU counts."""
MOST_UNITS = 20_000
_PUNCTUATION = re.compile(r"[^\w%.]|(?<!\d)\.|\.(?!\d)|_")
_ARTICLES = frozenset({"a", "an", "the"})


def normalise_answer(text: str) -> str:
    """Fold case, width, punctuation, thousands separators and white space."""
    folded = unicodedata.normalize("NFKC", text).lower()
    folded = re.sub(r"(?<=\d),(?=\d{3})", "", folded)
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


def units(text: str) -> list[str]:
    """Return what texts are compared by, at most ``MOST_UNITS``."""
    words = normalise_answer(text).split()
    if has_hangul(text):
        words = [char for word in words for char in word]
    return words[:MOST_UNITS]


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether the whole answer equals one of ``golds`` after folding."""
    return normalise_answer(answer) in {normalise_answer(gold) for gold in golds}


def contains(answer: str, golds: Sequence[str]) -> bool:
    """Whether one of ``golds`` stands in the answer after folding, white space aside."""
    squeezed = normalise_answer(answer).replace(" ", "")
    return any(_stands_in(normalise_answer(gold).replace(" ", ""), squeezed) for gold in golds)


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """Return the best F1 over ``golds``: by words, or by characters where Hangul occurs."""
    return max((_f1(_content_units(answer), _content_units(gold)) for gold in golds), default=0.0)


def bleu(pairs: Iterable[tuple[str, Sequence[str]]]) -> float:
    """Return corpus BLEU-4 of (text, references) in 0…1, without smoothing.

    Clipped n-gram precisions for n = 1…4, their geometric mean times the brevity penalty, with the
    reference of nearest length. Source: Papineni et al., "BLEU: a Method for Automatic Evaluation of
    Machine Translation", ACL 2002.
    """
    matched, possible = [0] * ORDERS, [0] * ORDERS
    length = wanted = 0
    for text, references in pairs:
        said = units(text)
        known = [units(one) for one in references]
        if not known:
            continue
        length += len(said)
        wanted += min((abs(len(one) - len(said)), len(one)) for one in known)[1]
        for n in range(1, ORDERS + 1):
            grams = _grams(said, n)
            most: Counter[tuple[str, ...]] = Counter()
            for one in known:
                most |= _grams(one, n)
            matched[n - 1] += sum((grams & most).values())
            possible[n - 1] += sum(grams.values())
    if not all(matched):
        return 0.0
    mean = sum(math.log(m / p) for m, p in zip(matched, possible, strict=True)) / ORDERS
    return math.exp(min(0.0, 1.0 - wanted / length) + mean)


def rouge_l(text: str, references: Sequence[str]) -> float:
    """Return the best ROUGE-L F1 of ``text`` over ``references``, in 0…1.

    Precision and recall of the longest common subsequence, weighed alike. Source: Lin, "ROUGE: A
    Package for Automatic Evaluation of Summaries", ACL Workshop 2004, section 3.
    """
    said = units(text)
    best = 0.0
    for reference in references:
        known = units(reference)
        common = longest_common(said, known)
        if common:
            best = max(best, 2.0 * common / (len(said) + len(known)))
    return best


def longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    One bit a unit of ``left``, one addition a unit of ``right``. Source: Hyyrö, "Bit-Parallel LCS-length
    Computation Revisited", AWOCA 2004.
    """
    places: dict[str, int] = {}
    for at, unit in enumerate(left):
        places[unit] = places.get(unit, 0) | (1 << at)
    full = (1 << len(left)) - 1
    open_bits = full
    for unit in right:
        met = open_bits & places.get(unit, 0)
        open_bits = ((open_bits + met) | (open_bits - met)) & full
    return len(left) - open_bits.bit_count()


def _grams(said: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(said[at : at + n]) for at in range(len(said) - n + 1))


def _stands_in(gold: str, answer: str) -> bool:
    """A gold that begins or ends with a digit must not be part of a longer number."""
    if not gold:
        return False
    before = r"(?<![\d.])" if gold[0].isdigit() else ""
    after = r"(?!\d)" if gold[-1].isdigit() else ""
    return re.search(before + re.escape(gold) + after, answer) is not None


def _content_units(text: str) -> list[str]:
    """Return the units that an answer is held to: without English articles."""
    return [unit for unit in units(text) if unit not in _ARTICLES]


def _f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    shared = sum((Counter(answer) & Counter(gold)).values())
    if not shared:
        return 0.0
    return 2 * shared / (len(answer) + len(gold))

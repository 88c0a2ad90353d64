"""What two short texts can be compared by: numbers, Latin words, Hangul bigrams.

A cheap stand-in for morphemes where a verdict is needed per sentence while an answer streams.
Pure; works on any length.

Whether what was found can answer the question at all: a calibrated number in 0…1.

A logistic function of how near the best passage is in meaning and how much of the question's
wording the best passages cover. ``benchmarks/relevance.py`` measures the shipped coefficients beside
freshly fitted ones on answerable and deliberately unanswerable questions; see ``docs/log.md``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ondol.core.types import Hit

_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[A-Za-z][A-Za-z'-]*|[가-힣]+|[一-鿿ぁ-ヿ]+")
_STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "to",
        "in",
        "on",
        "for",
        "and",
        "or",
        "is",
        "are",
        "was",
        "were",
        "be",
        "by",
        "at",
        "as",
        "it",
        "its",
        "that",
        "this",
        "with",
        "from",
        "what",
        "which",
        "who",
        "when",
        "where",
        "why",
        "how",
        "does",
        "do",
        "did",
        "can",
        "may",
        "must",
        "should",
        "your",
        "you",
        "we",
        "our",
        "they",
    ]
)
_ENDINGS = re.compile(
    r"(?:입니다|합니다|습니다|됩니다|합니까|입니까|이다|한다|된다|하여야|에게서|으로부터|에서는|에게는|으로는|까지는"
    r"|에서|에게|으로|까지|부터|이며|하며|이고|하고|은|는|이|가|을|를|의|에|와|과|도|로|만)$"
)

Features = dict[str, float]


def numbers(text: str) -> frozenset[str]:
    """Return the numbers in ``text``, thousands separators removed (``13,500원`` → ``13500``)."""
    return frozenset(
        _plain_number(match) for match in _TOKEN.findall(_fold(text)) if match[0].isdigit()
    )


def features(text: str) -> Features:
    """Return weighted features of ``text``: numbers 3, Latin words 2, bigrams of Hangul stems 1."""
    found: Features = {}
    for token in _TOKEN.findall(_fold(text)):
        if token[0].isdigit():
            found["#" + _plain_number(token)] = 3.0
        elif token[0].isascii():
            if token not in _STOP:
                found[token[:-1] if len(token) > 3 and token.endswith("s") else token] = 2.0
        else:
            found.update(dict.fromkeys(_pieces(token), 1.0))
    return found


def coverage(wanted: Features, given: Features) -> float:
    """Return the weighted share of ``wanted`` that occurs in ``given``, 0…1 (0 if nothing wanted)."""
    total = sum(wanted.values())
    return sum(weight for key, weight in wanted.items() if key in given) / total if total else 0.0


def union(parts: Iterable[Features]) -> Features:
    """Return the features of several texts together."""
    together: Features = {}
    for part in parts:
        together.update(part)
    return together


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _plain_number(token: str) -> str:
    plain = token.replace(",", "")
    return plain.lstrip("0") or "0" if plain.isdigit() else plain


def _pieces(word: str) -> list[str]:
    stem = _ENDINGS.sub("", word) if len(word) > 1 else word
    if len(stem) < 2:
        return [stem] if stem else []
    return [stem[i : i + 2] for i in range(len(stem) - 1)]


TOP = 5


@dataclass(frozen=True, slots=True)
class RelevanceSignals:
    """Cosine of the best passage, and the best share of the question's words in one passage."""

    dense: float
    coverage: float


@dataclass(frozen=True, slots=True)
class RelevanceCalibration:
    """Logistic coefficients: bias, per unit of cosine, per unit of coverage."""

    bias: float
    dense: float
    coverage: float


DEFAULT = RelevanceCalibration(bias=-129.0, dense=150.0, coverage=4.0)
"""Set for everyday wording, which shares few words with the text: cosine decides, words help."""


def signals(question: str, hits: Sequence[Hit]) -> RelevanceSignals:
    """Measure ``hits`` (best first) against ``question``."""
    wanted = features(question)
    covered = [
        coverage(wanted, features(f"{hit.title} {hit.heading} {hit.text}")) for hit in hits[:TOP]
    ]
    dense = [hit.dense_score for hit in hits if hit.dense_score is not None]
    return RelevanceSignals(dense=max(dense, default=0.0), coverage=max(covered, default=0.0))


def relevance(measured: RelevanceSignals, *, calibration: RelevanceCalibration = DEFAULT) -> float:
    """Return the estimated probability that the passages hold the answer."""
    z = (
        calibration.bias
        + calibration.dense * measured.dense
        + calibration.coverage * measured.coverage
    )
    return 1.0 / (1.0 + math.exp(-max(-600.0, min(600.0, z))))

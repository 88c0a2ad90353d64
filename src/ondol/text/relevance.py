"""Whether what was found can answer the question at all: a calibrated number in 0…1.

A logistic function of how near the best passage is in meaning and how much of the question's
wording the best passages cover. ``benchmarks/relevance.py`` measures the shipped coefficients beside
freshly fitted ones on answerable and deliberately unanswerable questions; see ``docs/log.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ondol.core.types import Hit
from ondol.text.features import coverage, features

TOP = 5


@dataclass(frozen=True, slots=True)
class Signals:
    """Cosine of the best passage, and the best share of the question's words in one passage."""

    dense: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic coefficients: bias, per unit of cosine, per unit of coverage."""

    bias: float
    dense: float
    coverage: float


DEFAULT = Calibration(bias=-129.0, dense=150.0, coverage=4.0)
"""Set for everyday wording, which shares few words with the text: cosine decides, words help."""


def signals(question: str, hits: Sequence[Hit]) -> Signals:
    """Measure ``hits`` (best first) against ``question``."""
    wanted = features(question)
    covered = [
        coverage(wanted, features(f"{hit.title} {hit.heading} {hit.text}")) for hit in hits[:TOP]
    ]
    dense = [hit.dense_score for hit in hits if hit.dense_score is not None]
    return Signals(dense=max(dense, default=0.0), coverage=max(covered, default=0.0))


def relevance(measured: Signals, *, calibration: Calibration = DEFAULT) -> float:
    """Return the estimated probability that the passages hold the answer."""
    z = (
        calibration.bias
        + calibration.dense * measured.dense
        + calibration.coverage * measured.coverage
    )
    return 1.0 / (1.0 + math.exp(-max(-600.0, min(600.0, z))))

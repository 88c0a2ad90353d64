"""Live figures of a model in service and its candidate: latency of each, and how far they agree.

Keeps the last requests for percentiles and running sums for the rest; memory is bounded. Agreement
is the cosine per text (embedders), Kendall's tau-b and the same first place (rerankers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ondol.core.types import FloatMatrix
from ondol.models.agreement import cosines, kendall_tau

WINDOW = 1000


@dataclass(frozen=True, slots=True)
class SideFigures:
    """One side: requests that were timed and their latency in milliseconds, without the queue."""

    requests: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class AgreementFigures:
    """``measure`` names the unit; ``mean`` and ``least`` are over ``compared`` texts or rankings."""

    measure: str
    compared: int
    mean: float | None
    least: float | None
    same_first: float | None = None


@dataclass(frozen=True, slots=True)
class ComparisonFigures:
    """What ``GET /v1/ab`` tells of a running comparison."""

    primary: SideFigures
    candidate: SideFigures
    agreement: AgreementFigures | None
    errors: int
    dropped: int


@dataclass(slots=True)
class _Side:
    requests: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, milliseconds: float) -> None:
        self.requests += 1
        self.recent.append(milliseconds)

    def figures(self) -> SideFigures:
        if not self.recent:
            return SideFigures(self.requests, None, None)
        p50, p95 = np.percentile(list(self.recent), [50, 95])
        return SideFigures(self.requests, round(float(p50), 3), round(float(p95), 3))


class Comparison:
    """Counts one comparison; ``measure`` is ``None`` where the answers cannot be compared."""

    def __init__(self, measure: str | None) -> None:
        self._measure = measure
        self._primary, self._candidate = _Side(), _Side()
        self._compared = 0
        self._sum = 0.0
        self._least: float | None = None
        self._rankings = 0
        self._same_first = 0
        self.errors = 0
        self.dropped = 0

    def primary(self, milliseconds: float) -> None:
        """Count a request that the model in service ran."""
        self._primary.add(milliseconds)

    def candidate(self, milliseconds: float) -> None:
        """Count a request that the candidate ran."""
        self._candidate.add(milliseconds)

    def vectors(self, ours: FloatMatrix, theirs: FloatMatrix) -> float | None:
        """Compare ``(n, d)`` rows one by one; returns the least cosine of this request."""
        values = cosines(ours, theirs)
        for value in values:
            self._agree(float(value))
        return float(values.min()) if len(values) else None

    def ranking(self, ours: Sequence[float], theirs: Sequence[float]) -> float | None:
        """Compare the order of two score lists; returns tau, or ``None`` for fewer than two."""
        if len(ours) < 2:
            return None
        tau = kendall_tau(ours, theirs)
        self._agree(tau)
        self._rankings += 1
        self._same_first += int(np.argmax(ours)) == int(np.argmax(theirs))
        return tau

    def figures(self) -> ComparisonFigures:
        agreement = None
        if self._measure is not None:
            agreement = AgreementFigures(
                measure=self._measure,
                compared=self._compared,
                mean=round(self._sum / self._compared, 6) if self._compared else None,
                least=None if self._least is None else round(self._least, 6),
                same_first=self._same_first / self._rankings if self._rankings else None,
            )
        return ComparisonFigures(
            primary=self._primary.figures(),
            candidate=self._candidate.figures(),
            agreement=agreement,
            errors=self.errors,
            dropped=self.dropped,
        )

    def _agree(self, value: float) -> None:
        self._compared += 1
        self._sum += value
        self._least = value if self._least is None else min(self._least, value)

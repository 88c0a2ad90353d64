"""One candidate's figures, or why it has none; and the same as a row of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ondol.models.tuning.candidates import SERVED_POLICIES, Candidate, Engine


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Memory in MB (10^6 bytes); energy ``None`` where it cannot be read."""

    texts_per_second: float
    tokens_per_second: float
    p50_ms: float
    p99_ms: float
    peak_rss_mb: float
    steady_rss_mb: float
    load_seconds: float
    joules_per_1000_texts: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A candidate after its measurement: ``figures`` and ``loss``, or ``failure`` in one sentence.

    ``fidelity`` holds the gate's figures as JSON.
    """

    candidate: Candidate
    figures: Figures | None = None
    loss: float | None = None
    batch_invariant: bool = True
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    def eligible(self, max_loss: float) -> bool:
        """Whether it may be chosen by itself: measured, close enough, free of batch mates, served."""
        return (
            self.figures is not None
            and self.candidate.policy in SERVED_POLICIES
            and self.loss is not None
            and self.loss <= max_loss
            and self.batch_invariant
        )

    def as_row(self) -> dict[str, Any]:
        """Return this as one flat row of JSON."""
        candidate = self.candidate
        row: dict[str, Any] = {
            **asdict(candidate.engine),
            "token_budget": candidate.token_budget,
            "policy": candidate.policy,
            "loss": self.loss,
            "batch_invariant": self.batch_invariant,
        }
        row |= asdict(self.figures) if self.figures else {"failure": self.failure}
        return {**row, "fidelity": dict(self.fidelity)}


def from_row(row: Mapping[str, Any]) -> Measured:
    """Return what ``as_row`` wrote; raises ``KeyError`` or ``TypeError`` where it did not."""
    engine = Engine(row["form"], row["threads"], row["streams"])
    figures = None
    if "failure" not in row:
        figures = Figures(**{name: row[name] for name in Figures.__slots__})
    return Measured(
        candidate=Candidate(engine, row["token_budget"], row["policy"]),
        figures=figures,
        loss=row["loss"],
        batch_invariant=row["batch_invariant"],
        fidelity=row["fidelity"],
        failure=row.get("failure", ""),
    )

"""A running probe of one engine, and the figures of the candidates that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.core.errors import ProbeFailed
from ondol.models.fidelity import Fidelity
from ondol.models.tuning.candidates import DEFAULT_BUDGET, Candidate
from ondol.models.tuning.measured import Figures, Measured
from ondol.services.evaluation.fidelity import figures
from ondol.services.evaluation.statistics import percentile
from ondol.services.probe.child import Probe
from ondol.services.probe.energy import EnergyMeter

MAX_BATCH = 64
MEGABYTE = 1e6


@dataclass(slots=True)
class Live:
    """One loaded engine. ``failure`` is set when it can no longer be measured."""

    probe: Probe
    loaded: Mapping[str, Any]
    fidelity: Fidelity
    failure: str = ""
    lone_seconds: list[float] = field(default_factory=list)
    warm_ups: dict[Candidate, Mapping[str, Any]] = field(default_factory=dict)
    runs: dict[Candidate, list[Mapping[str, Any]]] = field(default_factory=dict)
    joules: dict[Candidate, list[float | None]] = field(default_factory=dict)

    def bulk(self, candidate: Candidate, items: Path, *, warm_up: bool) -> None:
        """Run ``items`` as ``candidate`` batches them. Raises ``ProbeFailed``."""
        self.probe.ask("items", path=str(items))
        energy = EnergyMeter()
        run = self.probe.ask(
            "bulk",
            token_budget=candidate.token_budget,
            max_batch=MAX_BATCH,
            policy=candidate.policy,
        )
        joules = energy.joules()
        if run["failed"]:
            raise ProbeFailed(f"{run['failed']} of {run['texts']} texts failed", hint="see -v")
        if warm_up:
            self.warm_ups[candidate] = run
            return
        self.runs.setdefault(candidate, []).append(run)
        self.joules.setdefault(candidate, []).append(joules)

    def lone(self, items: Path, *, groups: Sequence[int]) -> None:
        """Run ``items``, ``groups`` of them to a request, one request at a time."""
        self.probe.ask("items", path=str(items))
        answer = self.probe.ask("lone", token_budget=DEFAULT_BUDGET, groups=list(groups))
        self.lone_seconds += answer["seconds"]

    def result(self, candidate: Candidate) -> Measured:
        """Return the candidate's figures: of its runs the median."""
        runs = self.runs.get(candidate)
        if self.failure or not runs:
            return Measured(candidate, failure=self.failure or "it never ran")
        found = figures(self.fidelity)
        return Measured(
            candidate,
            figures=Figures(
                texts_per_second=_median([run["texts"] / run["seconds"] for run in runs]),
                tokens_per_second=_median([run["tokens"] / run["seconds"] for run in runs]),
                p50_ms=percentile(self.lone_seconds, 0.5) * 1e3,
                p99_ms=percentile(self.lone_seconds, 0.99) * 1e3,
                peak_rss_mb=self.warm_ups.get(candidate, runs[0])["peak_bytes"] / MEGABYTE,
                steady_rss_mb=runs[-1]["steady_bytes"] / MEGABYTE,
                load_seconds=self.loaded["load_seconds"],
                joules_per_1000_texts=self._energy(candidate),
            ),
            loss=self.fidelity.loss,
            batch_invariant=self.fidelity.batch_invariant
            and bool(self.loaded["spec"]["batch_invariant"]),
            fidelity=found,
        )

    def _energy(self, candidate: Candidate) -> float | None:
        known = [joules for joules in self.joules.get(candidate, ()) if joules is not None]
        texts = self.runs[candidate][0]["texts"]
        return _median(known) / texts * 1000 if known else None


def _median(values: list[float]) -> float:
    return percentile(values, 0.5)

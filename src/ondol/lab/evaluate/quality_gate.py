"""The regression gate: a run's figures kept as a baseline, and a later run held against it.

A baseline is one JSON file with the scores of every query, so that a run that fell short can name
the queries that did. Only queries that both have count, so a set may grow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ondol.core.errors import GateFailed, InvalidInput, NotFound
from ondol.core.types import SearchMode
from ondol.lab.evaluate.answer_evaluation import FIGURES, QueryScore, mean

GATED = ("ndcg_at_10", "recall_at_10")
TOLERANCE = 0.005
_FORMAT = "ondol-retrieval-baseline-1"
_NAMED = 8

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Fallen:
    """A query that scores less than it did; ``before`` and ``now`` hold the gated figures."""

    id: str
    text: str
    before: Mapping[str, float]
    now: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """How a run stands to its baseline, over the ``queries`` that both have."""

    passed: bool
    tolerance: float
    queries: int
    before: Mapping[str, float]
    now: Mapping[str, float]
    fallen: tuple[Fallen, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def enforce(self) -> None:
        """Raise ``GateFailed``, naming the queries that fell furthest, unless the gate is passed."""
        if self.passed:
            return
        figures = ", ".join(f"{f} {self.before[f]:.4f} → {self.now[f]:.4f}" for f in GATED)
        named = ", ".join(one.id for one in self.fallen[:_NAMED])
        more = f" and {len(self.fallen) - _NAMED} more" if len(self.fallen) > _NAMED else ""
        raise GateFailed(
            f"retrieval fell by more than {self.tolerance:g}: {figures}; queries: {named}{more}",
            hint="see them with --json, or save a new baseline if the change is meant",
        )


def save_baseline(
    file: Path, scores: Sequence[QueryScore], *, dataset: str, mode: SearchMode
) -> None:
    """Write the scores as a baseline, replacing the file as a whole."""
    kept = {
        "format": _FORMAT,
        "dataset": dataset,
        "mode": mode,
        "figures": {figure: mean(scores, figure) for figure in FIGURES},
        "queries": {one.id: {f: getattr(one, f) for f in GATED} for one in scores},
    }
    text = json.dumps(kept, ensure_ascii=False, indent=1) + "\n"
    partial = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, "utf-8")
        partial.replace(file)
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be written: {error.strerror}", hint="name a file that can be"
        ) from None


def read_baseline(file: Path, *, dataset: str, mode: SearchMode) -> Scores:
    """Return the gated figures of every query of the baseline in ``file``, by its id.

    Raises ``NotFound`` for no file and ``InvalidInput`` for no baseline, or one of another data set
    or mode.
    """
    kept = _read(file)
    for what, said in (("dataset", dataset), ("mode", mode)):
        if kept[what] != said:
            raise InvalidInput(
                f"{file} is a baseline of {what} {kept[what]!r}, not {said!r}",
                hint=f"save one of this {what} with --save-baseline",
                param=what,
            )
    queries: Scores = kept["queries"]
    return queries


def check(
    before: Scores, scores: Sequence[QueryScore], *, tolerance: float = TOLERANCE
) -> GateVerdict:
    """Return how ``scores`` stand to the baseline's; fails where nDCG@10 or Recall@10 fell by more
    than ``tolerance``. Raises ``InvalidInput`` where the two share no query.
    """
    shared = [one for one in scores if one.id in before]
    if not shared:
        raise InvalidInput(
            "the baseline shares no query with this run",
            hint="save a new one with --save-baseline",
            param="gate",
        )
    was = {f: sum(before[one.id][f] for one in shared) / len(shared) for f in GATED}
    now = {f: mean(shared, f) for f in GATED}
    return GateVerdict(
        # Sums of the same numbers in another order differ in the last place.
        passed=all(now[f] >= was[f] - tolerance - 1e-9 for f in GATED),
        tolerance=tolerance,
        queries=len(shared),
        before=was,
        now=now,
        fallen=_fallen(shared, before),
    )


def _fallen(
    scores: Sequence[QueryScore], before: Mapping[str, Mapping[str, float]]
) -> tuple[Fallen, ...]:
    found = []
    for one in scores:
        now = {f: float(getattr(one, f)) for f in GATED}
        was = before[one.id]
        if any(now[f] < was[f] - 1e-9 for f in GATED):
            found.append(Fallen(one.id, one.text, dict(was), now))
    found.sort(key=lambda one: (sum(one.now[f] - one.before[f] for f in GATED), one.id))
    return tuple(found)


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"{file} does not exist", hint="write it with --save-baseline", param="gate"
        ) from None
    except (OSError, ValueError) as error:
        raise _no_baseline(file, str(error)) from None
    if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
        raise _no_baseline(file, f"its format is not {_FORMAT!r}")
    queries = kept.get("queries")
    if not isinstance(queries, dict) or not all(_scored(row) for row in queries.values()):
        raise _no_baseline(file, "its queries have no scores")
    return kept


def _scored(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(f), int | float) for f in GATED)


def _no_baseline(file: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{file} is no baseline: {why}", hint="write one with --save-baseline", param="gate"
    )

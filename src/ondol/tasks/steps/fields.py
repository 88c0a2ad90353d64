"""``fields``: pulls by rules what rules find best, and checks what the generator pulled.

Dates, sums of won, case numbers, articles and sentences (징역, 벌금) are read from the text with their
offsets; what the generator named (parties, claims) is kept only where it stands in the text word for
word. Parameters: ``of`` (the input's field), ``into`` (result key), ``quoted`` (keys of the result whose
rows must stand in the text), ``quote`` (the row's key that must), ``band`` (a marker: the sentences that
the passages so marked hold become ``sentence_band``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from ondol.packs.legal.case_fields import FieldMatch, Punishment, case_fields, punishments
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_run import TaskRun

_BLANKS = re.compile(r"\s+")


class FieldsParameters(Parameters):
    """See the module."""

    of: str = "text"
    into: str = "fields"
    quoted: tuple[str, ...] = ()
    quote: str = "text"
    band: str = ""


class Fields:
    """The step."""

    def __init__(self, parameters: FieldsParameters, bench: StepContext) -> None:
        self._parameters = parameters

    async def run(self, run: TaskRun) -> TaskRun:
        """Read the fields of ``run``'s input."""
        text = str(run.input.get(self._parameters.of, ""))
        if self._parameters.into:
            found = case_fields(text)
            rows = {kind: [told_found(one) for one in ones] for kind, ones in found.items()}
            run = run.adding(**{self._parameters.into: rows}).telling(fields=told_fields(found))
        for key in self._parameters.quoted:
            run = self._checked(run, key, text)
        return self._banded(run) if self._parameters.band else run

    def _checked(self, run: TaskRun, key: str, text: str) -> TaskRun:
        """Keep the rows whose quote stands in the text, with its place."""
        rows = run.result.get(key) or []
        kept: list[dict[str, Any]] = []
        for row in rows:
            place = place_of(str(row.get(self._parameters.quote, "")), text)
            if place is not None:
                kept.append({**row, "evidence": [_place(text, *place)]})
        return replace(run.adding(**{key: kept}), dropped=run.dropped + len(rows) - len(kept))

    def _banded(self, run: TaskRun) -> TaskRun:
        found = [
            (evidence.told(), one)
            for marker, evidence in run.evidence.items()
            if marker.startswith(self._parameters.band)
            for one in punishments(evidence.text)
        ]
        return run.adding(sentence_band=band_of(found))


def band_of(found: Sequence[tuple[Any, Punishment]]) -> dict[str, Any] | None:
    """Return the least, the median and the most of the commonest kind of punishment, with its basis."""
    kinds = [one.kind for _, one in found]
    if not kinds:
        return None
    kind = max(sorted(set(kinds)), key=kinds.count)
    rows = [(told, one) for told, one in found if one.kind == kind]
    amounts = [one.amount for _, one in rows]
    return {
        "kind": kind,
        "unit": rows[0][1].unit,
        "least": min(amounts),
        "median": float(median(amounts)),
        "most": max(amounts),
        "cases": len(rows),
        "suspended": sum(1 for _, one in rows if one.suspended),
        "evidence": [told for told, _ in rows[:5]],
    }


def place_of(quote: str, text: str) -> tuple[int, int] | None:
    """Return where ``quote`` stands in ``text``, blanks counting alike, or ``None``."""
    wanted = _BLANKS.sub("", quote)
    if not wanted:
        return None
    places = [at for at, char in enumerate(text) if not char.isspace()]
    start = "".join(text[at] for at in places).find(wanted)
    return None if start < 0 else (places[start], places[start + len(wanted) - 1] + 1)


def told_found(one: FieldMatch) -> dict[str, Any]:
    """Return what a rule found as results hold it."""
    return {"value": one.value, "text": one.text, "start": one.start, "end": one.end}


def told_fields(found: Mapping[str, Sequence[FieldMatch]]) -> str:
    """Return the fields in one line, for templates."""
    return "; ".join(
        f"{kind}: {', '.join(one.text for one in ones[:8])}" for kind, ones in found.items() if ones
    )


def _place(text: str, start: int, end: int) -> dict[str, Any]:
    quote = text[start:end]
    return {
        "document": "input",
        "page": None,
        "start": start,
        "end": end,
        "quote": quote,
        "title": "",
    }

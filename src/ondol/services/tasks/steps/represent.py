"""``represent``: chooses the few entries that stand for all, within a token budget.

The budget follows the length of the entries: ``limit`` of usual length fit, never more than ``tokens``;
a longer entry is cut. With groups, each group in turn chooses its own, so that every aspect is shown.
Parameters: ``limit``, ``tokens``, ``entry_tokens``, ``method`` (facility, mmr, medoids, or all: whole
entries until ``tokens`` are full, the baseline), ``label`` (only entries so labelled), ``each`` =
"groups", ``order`` ("text" keeps the input's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from ondol.core.types import FloatMatrix
from ondol.services.tasks.run import Entry, Evidence, Group, Run
from ondol.services.tasks.steps.base import Parameters
from ondol.services.tasks.workbench import Workbench
from ondol.text.fencing import one_line
from ondol.text.representatives import Method, fitting_budget, represent
from ondol.text.selection import estimate_tokens

_LABEL_TOKENS = 6


class RepresentParameters(Parameters):
    """See the module."""

    limit: int = Field(20, ge=1, le=5_000)
    tokens: int = Field(700, ge=16, le=100_000)
    entry_tokens: int = Field(90, ge=8, le=10_000)
    method: Method = "facility"
    label: str = ""
    each: Literal["", "groups"] = ""
    order: Literal["chosen", "text"] = "chosen"
    into: str = "representatives"


class Represent:
    """The step."""

    def __init__(self, parameters: RepresentParameters, bench: Workbench) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: Run) -> Run:
        """Choose the representatives of ``run``'s entries and put them into the prompt's data."""
        if not run.entries:
            return run.warned("there is nothing to choose from")
        if hidden := sum(entry.directs for entry in run.entries):
            run = run.warned(
                f"{hidden} texts read like orders to the machine and were not shown to it"
            )
        if self._parameters.method == "all":
            return self._shown(run, self._every(run))
        run, vectors = await self._bench.with_vectors(run)
        costs = [self._cost(entry) for entry in run.entries]
        most = min(self._parameters.tokens, self._bench.settings.max_tokens)
        budget = fitting_budget(costs, limit=self._parameters.limit, most=most)
        if self._parameters.each == "groups" and run.groups:
            chosen = self._by_group(run, vectors, costs, budget)
        else:
            chosen = self._of(self._members(run), vectors, costs, budget, self._parameters.limit)
        return self._shown(run, chosen)

    def _every(self, run: Run) -> list[int]:
        costs = [estimate_tokens(entry.text) + _LABEL_TOKENS for entry in run.entries]
        kept: list[int] = []
        left = min(self._parameters.tokens, self._bench.settings.max_tokens)
        for place in self._members(run):
            if costs[place] <= left:
                kept.append(place)
                left -= costs[place]
        return kept

    def _members(self, run: Run) -> list[int]:
        label = self._parameters.label
        shown = [i for i, entry in enumerate(run.entries) if not entry.directs]
        found = [i for i in shown if not label or run.entries[i].label == label]
        return found or shown

    def _cost(self, entry: Entry) -> int:
        return min(estimate_tokens(entry.text), self._parameters.entry_tokens) + _LABEL_TOKENS

    def _of(
        self,
        members: Sequence[int],
        vectors: FloatMatrix,
        costs: Sequence[int],
        budget: int,
        limit: int,
    ) -> list[int]:
        if not members:
            return []
        found = represent(
            vectors[list(members)],
            [costs[i] for i in members],
            budget=budget,
            limit=limit,
            method=self._parameters.method,
        )
        return [members[i] for i in found]

    def _by_group(
        self, run: Run, vectors: FloatMatrix, costs: Sequence[int], budget: int
    ) -> list[int]:
        """Return the groups' own representatives, in turn, until budget or limit is reached."""
        share = max(2, -(-self._parameters.limit // len(run.groups)))
        members = [[i for i in g.members if not run.entries[i].directs] for g in run.groups]
        orders = [self._of(one, vectors, costs, budget, share) for one in members]
        chosen: dict[int, None] = {}
        left = budget
        for turn in range(share):
            for order in orders:
                if turn >= len(order) or order[turn] in chosen:
                    continue
                if costs[order[turn]] <= left and len(chosen) < self._parameters.limit:
                    chosen[order[turn]] = None
                    left -= costs[order[turn]]
        return list(chosen)

    def _shown(self, run: Run, chosen: Sequence[int]) -> Run:
        places = sorted(chosen) if self._parameters.order == "text" else list(chosen)
        entries = [run.entries[i] for i in places]
        evidence = {entry.marker: entry_evidence(entry) for entry in entries}
        markers = {run.entries[i].marker for i in chosen}
        groups = [
            replace(
                group,
                markers=tuple(
                    run.entries[i].marker for i in group.members if run.entries[i].marker in markers
                ),
            )
            for group in run.groups
        ]
        kept = tuple(group for group in groups if group.markers)
        lines = self._lines(entries, kept)
        told = "\n".join(f"- {g.key}: {', '.join(g.markers[:6])}" for g in kept)
        run = replace(
            run,
            chosen=tuple(places),
            groups=kept,
            evidence={**run.evidence, **evidence},
            shown=(*run.shown, *evidence),
            lines=(*run.lines, *lines),
        )
        run = run.telling(groups=told, count=str(len(run.entries)))
        into = self._parameters.into
        return run.adding(**{into: [entry.id for entry in entries]}) if into else run

    def _lines(self, entries: Sequence[Entry], groups: Sequence[Group]) -> list[str]:
        """Return the data's lines: each entry once, under the key of its first group if any."""
        told = {entry.marker: f"[{entry.marker}] {self._cut(entry)}" for entry in entries}
        lines: list[str] = []
        for group in groups if self._parameters.each == "groups" else ():
            mine = [told.pop(marker) for marker in group.markers if marker in told]
            lines += [f"## {group.key}", *mine] if mine else []
        return [*lines, *told.values()]

    def _cut(self, entry: Entry) -> str:
        tokens = estimate_tokens(entry.text)
        if tokens <= self._parameters.entry_tokens or self._parameters.method == "all":
            return one_line(entry.text)
        share = self._parameters.entry_tokens / tokens
        return one_line(entry.text, limit=max(8, int(len(entry.text) * share)))


def entry_evidence(entry: Entry) -> Evidence:
    """Return an entry as evidence: by its id, a sentence of the input by its place."""
    if entry.end:
        return Evidence(
            entry.marker, entry.text, document="input", start=entry.start, end=entry.end
        )
    return Evidence(entry.marker, entry.text, id=entry.id)

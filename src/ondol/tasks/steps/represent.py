"""``represent``: chooses the few entries that stand for all, within a token budget.

The budget follows the length of the entries: ``limit`` of usual length fit, never more than ``tokens``;
a longer entry is cut. With groups, each group in turn chooses its own, so that every aspect is shown.
Parameters: ``limit``, ``tokens``, ``entry_tokens``, ``method`` (facility, mmr, medoids, or all: whole
entries until ``tokens`` are full, the baseline), ``label`` (only entries so labelled), ``each`` =
"groups", ``clauses`` (a group shows of an entry only what it says of the group's aspect, so that small
generators do not word something else), ``order`` ("text" keeps the input's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from ondol.answers.prompts import one_line
from ondol.answers.selection import estimate_tokens
from ondol.core.types import FloatMatrix
from ondol.tasks.representatives import Method, fitting_budget, represent
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_run import Entry, Group, TaskEvidence, TaskRun

_LABEL_TOKENS = 6


class RepresentParameters(Parameters):
    """See the module."""

    limit: int = Field(20, ge=1, le=5_000)
    tokens: int = Field(700, ge=16, le=100_000)
    entry_tokens: int = Field(90, ge=8, le=10_000)
    method: Method = "facility"
    label: str = ""
    each: Literal["", "groups"] = ""
    clauses: bool = False
    order: Literal["chosen", "text"] = "chosen"
    into: str = "representatives"


@dataclass(frozen=True, slots=True)
class _Pick:
    """An entry to show: by its place, as a whole or (``text``) what it says of the group ``key``."""

    place: int
    key: str = ""
    text: str = ""


class Represent:
    """The step."""

    def __init__(self, parameters: RepresentParameters, bench: StepContext) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: TaskRun) -> TaskRun:
        """Choose the representatives of ``run``'s entries and put them into the prompt's data."""
        if not run.entries:
            return run.warned("there is nothing to choose from")
        if self._parameters.method == "all":
            return self._shown(run, self._every(run))
        run, vectors = await self._bench.with_vectors(run)
        budget = fitting_budget(
            [self._cost(entry.text) for entry in run.entries],
            limit=self._parameters.limit,
            most=min(self._parameters.tokens, self._bench.settings.max_tokens),
        )
        if self._parameters.each == "groups" and run.groups:
            return self._shown(run, self._by_group(run, vectors, budget))
        picks = [_Pick(place) for place in self._members(run)]
        return self._shown(run, self._of(run, picks, vectors, budget, self._parameters.limit))

    def _every(self, run: TaskRun) -> list[_Pick]:
        costs = [estimate_tokens(entry.text) + _LABEL_TOKENS for entry in run.entries]
        kept: list[_Pick] = []
        left = min(self._parameters.tokens, self._bench.settings.max_tokens)
        for place in self._members(run):
            if costs[place] <= left:
                kept.append(_Pick(place))
                left -= costs[place]
        return kept

    def _members(self, run: TaskRun) -> list[int]:
        label = self._parameters.label
        places = range(len(run.entries))
        labelled = [i for i in places if not label or run.entries[i].label == label]
        return labelled or list(places)

    def _cost(self, text: str) -> int:
        return min(estimate_tokens(text), self._parameters.entry_tokens) + _LABEL_TOKENS

    def _pick_cost(self, run: TaskRun, pick: _Pick) -> int:
        return self._cost(pick.text or run.entries[pick.place].text)

    def _of(
        self, run: TaskRun, picks: Sequence[_Pick], vectors: FloatMatrix, budget: int, limit: int
    ) -> list[_Pick]:
        if not picks:
            return []
        found = represent(
            vectors[[pick.place for pick in picks]],
            [self._pick_cost(run, pick) for pick in picks],
            budget=budget,
            limit=limit,
            method=self._parameters.method,
        )
        return [picks[i] for i in found]

    def _by_group(self, run: TaskRun, vectors: FloatMatrix, budget: int) -> list[_Pick]:
        """Return the groups' own representatives, in turn, until budget or limit is reached."""
        share = max(2, -(-self._parameters.limit // len(run.groups)))
        orders = [
            self._of(run, self._group_picks(run, group), vectors, budget, share)
            for group in run.groups
        ]
        chosen: dict[_Pick, None] = {}
        left = budget
        for turn in range(share):
            for order in orders:
                if turn >= len(order) or order[turn] in chosen:
                    continue
                cost = self._pick_cost(run, order[turn])
                if cost <= left and len(chosen) < self._parameters.limit:
                    chosen[order[turn]] = None
                    left -= cost
        return list(chosen)

    def _group_picks(self, run: TaskRun, group: Group) -> list[_Pick]:
        """Return what ``group`` may show: whole entries, or their clauses, each wording once."""
        if not self._parameters.clauses:
            return [_Pick(place) for place in group.members]
        said = {
            mention.said: _Pick(place, group.key, mention.said)
            for place in reversed(group.members)
            for mention in run.entries[place].mentions
            if mention.aspect == group.key
        }
        return sorted(said.values(), key=lambda pick: pick.place)

    def _shown(self, run: TaskRun, picks: Sequence[_Pick]) -> TaskRun:
        places = list(dict.fromkeys(pick.place for pick in picks))
        if self._parameters.order == "text":
            places.sort()
        entries = [run.entries[i] for i in places]
        evidence = {entry.marker: entry_evidence(entry) for entry in entries}
        kept = _marked(run, picks)
        lines = self._lines(run, picks, entries, kept)
        told = "\n".join(f"- {self._topic(group)}" for group in kept)
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

    def _lines(
        self,
        run: TaskRun,
        picks: Sequence[_Pick],
        entries: Sequence[Entry],
        groups: Sequence[Group],
    ) -> list[str]:
        """Return the data's lines: clauses under their group's key, else each entry once, under
        the key of its first group if any."""
        clauses = any(pick.text for pick in picks)
        whole = {
            entry.marker: f"[{entry.marker}] {self._cut(entry.text)}"
            for entry in (() if clauses else entries)
        }
        lines: list[str] = []
        for group in groups if self._parameters.each == "groups" else ():
            mine = [
                f"[{run.entries[pick.place].marker}] {self._cut(pick.text)}"
                for pick in picks
                if pick.text and pick.key == group.key
            ] or [whole.pop(marker) for marker in group.markers if marker in whole]
            lines += [f"## {group.key}", *mine] if mine else []
        return [*lines, *whole.values()]

    def _topic(self, group: Group) -> str:
        """Return a group as the request names it; its clauses stand under it in the data already."""
        if self._parameters.clauses:
            return group.key
        return f"{group.key}: {', '.join(group.markers[:6])}"

    def _cut(self, text: str) -> str:
        tokens = estimate_tokens(text)
        if tokens <= self._parameters.entry_tokens or self._parameters.method == "all":
            return one_line(text)
        share = self._parameters.entry_tokens / tokens
        return one_line(text, limit=max(8, int(len(text) * share)))


def _marked(run: TaskRun, picks: Sequence[_Pick]) -> tuple[Group, ...]:
    """Return the groups that are shown, each with the markers that stand for it."""
    said: dict[str, list[int]] = {}
    for pick in picks:
        said.setdefault(pick.key, []).append(pick.place)
    whole = set(said.pop("", ()))
    groups = []
    for group in run.groups:
        places = said.get(group.key) or [i for i in group.members if i in whole]
        markers = tuple(run.entries[i].marker for i in places)
        groups += [replace(group, markers=markers)] if markers else []
    return tuple(groups)


def entry_evidence(entry: Entry) -> TaskEvidence:
    """Return an entry as evidence: by its id, a sentence of the input by its place."""
    if entry.end:
        return TaskEvidence(
            entry.marker, entry.text, document="input", start=entry.start, end=entry.end
        )
    return TaskEvidence(entry.marker, entry.text, id=entry.id)

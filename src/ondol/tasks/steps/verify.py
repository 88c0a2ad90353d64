"""``verify``: keeps a claim only where its evidence carries it; the others are dropped and counted.

A claim is an object of the result with a text and ``evidence``, markers of the prompt. Its evidence
carries it when every number of the text stands there, it covers enough of the words (or is near enough
in meaning), the polarity is the same, and every law or case it names exists in a collection. Where the
cited evidence does not, the rest of what was there is searched for what does; a claim about an aspect is
given whatever else carries it, up to ``evidence``. Markers then become ids,
or document, page, offsets and quote. Parameters: ``claims`` (keys of the result), ``text`` (the claim's
text), ``min_support``, ``min_cosine`` (0: words alone), ``polarity``, ``references`` (name the fields
of the input with collections), ``evidence`` (most kept per claim), ``kinds`` (letters of the markers that
may carry a claim: the facts of a case only its own sentences), ``exists`` (the marker alone is the claim:
a passage that was found).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from ondol.answers.features import Features, coverage, features, numbers, union
from ondol.core.errors import NotFound
from ondol.core.types import FloatMatrix
from ondol.packs.legal.references import Reference, references_of
from ondol.search.lookups import Lookups
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.represent import entry_evidence
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_run import TaskEvidence, TaskRun


class VerifyParameters(Parameters):
    """See the module."""

    claims: tuple[str, ...]
    text: str = "text"
    min_support: float = Field(0.3, ge=0, le=1)
    min_cosine: float = Field(0.0, ge=0, le=1)
    polarity: bool = False
    lexicon: str = ""
    references: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    evidence: int = Field(3, ge=1, le=20)
    kinds: tuple[str, ...] = ()
    exists: bool = False

    def needs(self) -> list[tuple[str, str, str]]:
        return [("lexicon", "lexicon", self.lexicon)] if self.lexicon else []


@dataclass(frozen=True, slots=True)
class _Candidate:
    evidence: TaskEvidence
    features: Features
    numbers: frozenset[str]
    place: int


class Verify:
    """The step."""

    def __init__(self, parameters: VerifyParameters, bench: StepContext) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: TaskRun) -> TaskRun:
        """Check the claims of ``run``'s result."""
        kinds = self._parameters.kinds
        candidates = {
            marker: one
            for marker, one in _candidates(run).items()
            if not kinds or marker.rstrip("0123456789") in kinds
        }
        dropped = 0
        checked: dict[str, Any] = {}
        for key in self._parameters.claims:
            value = run.result.get(key)
            rows = (
                value if isinstance(value, list) else [value] if isinstance(value, Mapping) else []
            )
            vectors = await self._vectors(rows)
            kept: list[dict[str, Any]] = []
            told: set[str] = set()
            for at, row in enumerate(rows):
                text = "".join(str(row.get(self._parameters.text, "")).split())
                if text in told and not self._parameters.exists:
                    continue
                told.add(text)
                found = await self._supported(
                    run, row, candidates, None if vectors is None else vectors[at]
                )
                if found:
                    kept.append({**row, "evidence": [one.evidence.told() for one in found]})
            dropped += len(rows) - len(kept)
            if isinstance(value, list):
                checked[key] = kept
            elif value is not None:
                checked[key] = next(iter(kept), None)
        return replace(run.adding(**checked), dropped=run.dropped + dropped)

    async def _vectors(self, rows: Sequence[Mapping[str, Any]]) -> FloatMatrix | None:
        texts = [str(row.get(self._parameters.text, "")) for row in rows]
        if not self._parameters.min_cosine or not texts:
            return None
        return (await self._bench.vectors([text or " " for text in texts]))[0]

    async def _supported(
        self,
        run: TaskRun,
        row: Mapping[str, Any],
        candidates: Mapping[str, _Candidate],
        vector: Any,
    ) -> list[_Candidate]:
        """Return the evidence that carries the claim; none where nothing does."""
        cited = [candidates[m] for m in dict.fromkeys(row.get("evidence", ())) if m in candidates]
        text = str(row.get(self._parameters.text, ""))
        if not await self._names_exist(run, text):
            return []
        if self._parameters.exists:
            return cited[: self._parameters.evidence]
        if not features(text) or self._turned(run, row, text):
            return []
        near = self._nearness(run, vector)
        rest = self._allowed(run, row, candidates)
        if self._carried(text, cited, near):
            kept = self._best(text, cited, near)
            return [*kept, *self._others(text, rest, near, kept)] if row.get("aspect") else kept
        # Not what was cited: perhaps another piece of what is there carries it.
        best = self._best(text, rest, near)
        return best if self._carried(text, best, near) else []

    def _others(
        self,
        text: str,
        rest: Sequence[_Candidate],
        near: Mapping[int, float],
        kept: Sequence[_Candidate],
    ) -> list[_Candidate]:
        """Return what carries the text by itself, beside ``kept``, as much as there is room for."""
        room = self._parameters.evidence - len(kept)
        if room <= 0:
            return []
        known = {one.evidence.marker for one in kept}
        alone = [
            one
            for one in rest
            if one.evidence.marker not in known and self._carried(text, [one], near)
        ]
        return self._best(text, alone, near)[:room] if alone else []

    def _allowed(
        self, run: TaskRun, row: Mapping[str, Any], candidates: Mapping[str, _Candidate]
    ) -> list[_Candidate]:
        """Return what may carry the claim: for a claim about an aspect, entries that say so of it."""
        aspect, polarity = row.get("aspect"), row.get("polarity")
        if not aspect or not run.entries:
            return list(candidates.values())
        speaking = {
            entry.marker
            for entry in run.entries
            if any(
                m.aspect == aspect and (not polarity or m.polarity == polarity)
                for m in entry.mentions
            )
        }
        return [one for marker, one in candidates.items() if marker in speaking]

    def _carried(self, text: str, found: Sequence[_Candidate], near: Mapping[int, float]) -> bool:
        if not found or not numbers(text) <= frozenset().union(*(one.numbers for one in found)):
            return False
        if (
            coverage(features(text), union(one.features for one in found))
            >= self._parameters.min_support
        ):
            return True
        nearest = max((near.get(one.place, 0.0) for one in found), default=0.0)
        return bool(self._parameters.min_cosine) and nearest >= self._parameters.min_cosine

    def _best(
        self, text: str, found: Sequence[_Candidate], near: Mapping[int, float]
    ) -> list[_Candidate]:
        """Return the candidates that say most of the text, the best first.

        Those that say less than half as much as the best are left out where the others do without.
        """
        wanted, needed = features(text), numbers(text)

        def worth(one: _Candidate) -> float:
            return (
                coverage(wanted, one.features)
                + len(needed & one.numbers)
                + 2.0 * near.get(one.place, 0.0)
            )

        ranked = sorted(found, key=lambda one: -worth(one))[: self._parameters.evidence]
        kept = [one for one in ranked if worth(one) >= worth(ranked[0]) / 2]
        return kept if self._carried(text, kept, near) else ranked

    def _nearness(self, run: TaskRun, vector: Any) -> dict[int, float]:
        if vector is None or run.vectors is None:
            return {}
        return dict(enumerate((run.vectors @ vector).tolist()))

    def _turned(self, run: TaskRun, row: Mapping[str, Any], text: str) -> bool:
        """Whether the text praises what its polarity blames, or speaks of other aspects only."""
        if not self._parameters.polarity or not self._parameters.lexicon:
            return False
        lexicon = self._bench.lexicon(run.task, self._parameters.lexicon)
        named = {aspect for clause in lexicon.clauses(text) for aspect in clause.aspects}
        if named and row.get("aspect") and row["aspect"] not in named:
            return True
        said = lexicon.polarity(text)
        meant = {"positive": 1, "negative": -1}.get(str(row.get("polarity", "")), 0)
        return said * meant < 0

    async def _names_exist(self, run: TaskRun, text: str) -> bool:
        """Whether every law and case the text names is in a collection, or in the input itself."""
        if not self._parameters.references:
            return True
        given = " ".join(value for value in run.input.values() if isinstance(value, str))
        known = {key for one in references_of(given) for key in one.keys}
        for one in references_of(text):
            if known.isdisjoint(one.keys) and not await self._looked_up(run, one):
                return False
        return True

    async def _looked_up(self, run: TaskRun, name: Reference) -> bool:
        lookups = Lookups(self._bench.services.store)
        defaults = (*self._parameters.defaults, *("",) * len(self._parameters.references))
        for field, default in zip(self._parameters.references, defaults, strict=False):
            collection = run.input.get(field) or default
            if not collection:
                continue
            try:
                found = await asyncio.to_thread(lookups.of, collection, name)
            except NotFound:
                continue
            if found:
                return True
        return False


def _candidates(run: TaskRun) -> dict[str, _Candidate]:
    """Return everything a claim may rest on: what the prompt showed, and all entries."""
    shown = {
        marker: _Candidate(
            evidence, features(f"{evidence.title} {evidence.text}"), numbers(evidence.text), -1
        )
        for marker, evidence in run.evidence.items()
    }
    entries = {
        entry.marker: _Candidate(
            entry_evidence(entry), features(entry.text), numbers(entry.text), place
        )
        for place, entry in enumerate(run.entries)
    }
    return {**shown, **entries}

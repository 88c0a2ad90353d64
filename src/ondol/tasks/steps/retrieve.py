"""``retrieve``: finds passages in a collection that the input names, and shows them as evidence.

The best sentences of each passage go into the prompt; the passages themselves, with document, page and
offsets, become evidence. Parameters: ``field`` (the input's field with the collection's name) and
``collection`` (its name where the input says none), ``query`` (the input's field that is searched for),
``limit``, ``tokens``, ``marker``, ``into`` (result key of the list of hits), ``optional`` (a collection
that is not there is a warning, not an error), ``history`` (the field with earlier turns), ``cited_by``
(the input's field, or the name, of a collection whose nearest passages name what is looked for: decisions
of similar cases name the provisions; half of what is found comes from there).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from pydantic import Field

from ondol.answers.features import coverage, features
from ondol.answers.prompts import one_line
from ondol.answers.rewriting import ConversationTurn, QueryRewriter
from ondol.answers.selection import Excerpt, Sentence, estimate_tokens, pack
from ondol.core.errors import NotFound
from ondol.core.settings.sections import RetrievalSettings
from ondol.core.types import Hit
from ondol.language.sentences import split_sentences
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_run import TaskEvidence, TaskRun

_QUERY_CHARS = 1_500
_CITING = 12
"""Passages of another collection whose references count."""


class RetrieveParameters(Parameters):
    """See the module."""

    field: str = "collection"
    collection: str = ""
    query: str = "text"
    limit: int = Field(5, ge=1, le=50)
    tokens: int = Field(500, ge=16, le=20_000)
    marker: str = Field("p", pattern=r"^[a-z]$")
    into: str = ""
    optional: bool = False
    history: str = ""
    cited_by: str = ""


class Retrieve:
    """The step."""

    def __init__(self, parameters: RetrieveParameters, bench: StepContext) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: TaskRun) -> TaskRun:
        """Find passages for ``run``'s input."""
        name = run.input.get(self._parameters.field) or self._parameters.collection
        if not name:
            return self._without(run, f"no collection was named in {self._parameters.field!r}")
        try:
            hits = await self._found(run, name)
        except NotFound:
            if not self._parameters.optional:
                raise
            return self._without(
                run, f"there is no collection {name!r}: nothing was looked up in it"
            )
        excerpts = self._excerpts(run, hits)
        evidence = {
            f"{self._parameters.marker}{number}": _evidence(
                f"{self._parameters.marker}{number}", one, name
            )
            for number, one in enumerate(excerpts, start=1)
        }
        lines = [
            _line(evidence[marker], one) for marker, one in zip(evidence, excerpts, strict=True)
        ]
        run = replace(
            run,
            evidence={**run.evidence, **evidence},
            shown=(*run.shown, *evidence),
            lines=(*run.lines, *lines),
        )
        return self._kept(run, hits)

    def _without(self, run: TaskRun, warning: str) -> TaskRun:
        run = run.warned(warning)
        return run.adding(**{self._parameters.into: []}) if self._parameters.into else run

    async def _found(self, run: TaskRun, name: str) -> list[Hit]:
        question = str(run.input.get(self._parameters.query, ""))[:_QUERY_CHARS]
        meant = await QueryRewriter(None, settings=RetrievalSettings()).meant(
            question, self._turns(run)
        )
        wanted = int(run.input.get("top_k") or self._parameters.limit)
        wanted = min(wanted, self._parameters.limit)
        hits = await self._nearest(run, name, question, meant.also, wanted)
        if not self._parameters.cited_by:
            return hits
        return _in_turn(hits, await self._cited(run, name, question, meant.also))[:wanted]

    async def _nearest(
        self, run: TaskRun, name: str, question: str, also: Sequence[str], wanted: int
    ) -> list[Hit]:
        left_out = frozenset(run.input.get("exclude", ()))
        found = await self._bench.services.retrieval.search(
            name,
            question,
            also=also,
            top_k=wanted + len(left_out),
            timing=run.timing,
            lane=None,
        )
        return [hit for hit in found.hits if hit.document not in left_out][:wanted]

    async def _cited(
        self, run: TaskRun, name: str, question: str, also: Sequence[str]
    ) -> list[Hit]:
        """Return what the nearest passages of another collection name; nothing without it."""
        other = self._parameters.cited_by
        other = str(run.input.get(other) or other)
        try:
            nearest = await self._nearest(run, other, question, also, _CITING)
        except NotFound:
            return []
        texts = [hit.text for hit in nearest]
        limit = self._parameters.limit
        return await self._bench.services.retrieval.cited_by(name, texts, limit=limit)

    def _turns(self, run: TaskRun) -> list[ConversationTurn]:
        """Return the earlier turns of the input: question and answer by pairs."""
        turns: list[ConversationTurn] = []
        question = ""
        for row in run.input.get(self._parameters.history, ()) if self._parameters.history else ():
            if row["role"] == "user":
                question = row["content"]
            elif question:
                turns.append(ConversationTurn(question, row["content"]))
                question = ""
        return turns

    def _excerpts(self, run: TaskRun, hits: Sequence[Hit]) -> list[Excerpt]:
        """Return the sentences of ``hits`` that go before the generator, in the order of the hits."""
        wanted = features(str(run.input.get(self._parameters.query, ""))[:_QUERY_CHARS])
        sentences = [
            Sentence(
                n, s, e, coverage(wanted, features(hit.text[s:e])) - 0.05 * n, _tokens(hit, s, e)
            )
            for n, hit in enumerate(hits)
            for s, e in split_sentences(hit.text)
        ]
        budget = min(self._parameters.tokens, self._bench.settings.max_tokens)
        found = pack(hits, sentences, budget=budget, max_excerpts=len(hits) or 1)
        place = {id(hit): at for at, hit in enumerate(hits)}
        return sorted(found, key=lambda one: place[id(one.hit)])

    def _kept(self, run: TaskRun, hits: Sequence[Hit]) -> TaskRun:
        if not self._parameters.into:
            return run
        return run.adding(**{self._parameters.into: [told_hit(hit) for hit in hits]})


def _in_turn(nearest: Sequence[Hit], cited: Sequence[Hit]) -> list[Hit]:
    """Return what is both first, then one of each in turn, each once."""
    named = {hit.chunk for hit in cited}
    both = [hit for hit in nearest if hit.chunk in named]
    turns = [hit for pair in zip_longest(nearest, cited) for hit in pair if hit is not None]
    return list({hit.chunk: hit for hit in [*both, *turns]}.values())


def told_hit(hit: Hit) -> dict[str, Any]:
    """Return a hit as results hold it."""
    place = {"document": hit.document, "page": hit.page, "start": hit.start, "end": hit.end}
    return {
        "title": hit.title or hit.heading or hit.document,
        "text": hit.text,
        "score": round(float(hit.score), 4),
        "evidence": [{**place, "quote": hit.text, "title": hit.title}],
    }


def _tokens(hit: Hit, start: int, end: int) -> int:
    return estimate_tokens(hit.text[start:end])


def _evidence(marker: str, excerpt: Excerpt, collection: str) -> TaskEvidence:
    """Return the range from the first to the last sentence shown, verbatim."""
    hit = excerpt.hit
    start, end = excerpt.spans[0][0], excerpt.spans[-1][1]
    return TaskEvidence(
        marker,
        hit.text[start:end],
        document=hit.document,
        page=hit.page,
        start=hit.start + start,
        end=hit.start + end,
        title=hit.title or hit.heading,
        collection=collection,
        metadata=hit.metadata,
    )


def _line(evidence: TaskEvidence, excerpt: Excerpt) -> str:
    title = one_line(evidence.title or evidence.document, limit=120)
    return f"[{evidence.marker}] ({title}) {one_line(excerpt.text)}"

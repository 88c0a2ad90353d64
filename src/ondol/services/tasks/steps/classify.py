"""``classify``: labels every entry from its vector, and says how all of them are distributed.

No generator is asked for an entry whose label is sure; the few least sure may be put before it, a few
a request. Fills ``labels`` (id, label, score, by) and ``distribution``; the score is a calibrated
probability. Parameters: ``classifier`` (an .npz of the pack, ``{language}`` is filled in), ``between``
(the label of entries no label is sure of) with ``sure`` (from which probability one is), ``ask`` (how
many unsure entries the generator may be asked about, unless the input's own ``ask`` says), ``ask_below``
(from which probability on an entry is sure), ``prompt`` (how it is asked, in requests of eight).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from ondol.core.types import FloatMatrix, GenerationRequest
from ondol.services.tasks.answers import parsed
from ondol.services.tasks.classifier import Classifier, Floats
from ondol.services.tasks.run import Entry, Run
from ondol.services.tasks.steps.base import Parameters
from ondol.services.tasks.templates import Prompt
from ondol.services.tasks.workbench import Workbench
from ondol.text.fencing import fenced, one_line

_ASKED_CHARS = 200
_ASKED_AT_ONCE = 8


class ClassifyParameters(Parameters):
    """See the module."""

    classifier: str = "classifiers/sentiment.{language}.npz"
    between: str = ""
    sure: float = Field(0.0, ge=0, le=1)
    ask: int = Field(0, ge=0, le=32)
    ask_below: float = Field(0.6, ge=0, le=1)
    prompt: str = ""
    rows: bool = True

    def needs(self) -> list[tuple[str, str, str]]:
        files = [("classifier", "classifier", self.classifier)]
        return [*files, ("prompt", "prompt", self.prompt)] if self.prompt or self.ask else files


class Classify:
    """The step."""

    def __init__(self, parameters: ClassifyParameters, bench: Workbench) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: Run) -> Run:
        """Label the entries of ``run``."""
        classifier = self._bench.classifier(run.task, self._parameters.classifier, run.language)
        run, vectors = await self._vectors(run, classifier)
        chances = classifier.predict([entry.text for entry in run.entries], vectors)
        entries = [
            self._labelled(entry, row, classifier.labels)
            for entry, row in zip(run.entries, chances, strict=True)
        ]
        run = replace(run, entries=tuple(entries))
        if most := int(run.input.get("ask", self._parameters.ask)):
            run = await self._asked(run, chances, self._labels(classifier), most)
        labels = self._labels(classifier)
        share = distribution(run.entries, labels)
        run = run.telling(distribution=told_distribution(share)).adding(
            distribution=share, counted=len(run.entries)
        )
        return run.adding(labels=label_rows(run.entries)) if self._parameters.rows else run

    async def _vectors(self, run: Run, classifier: Classifier) -> tuple[Run, FloatMatrix | None]:
        """Return the vectors that ``classifier`` was made for; none where others are loaded."""
        embedding = self._bench.services.embedding
        if not classifier.fits(embedding.model, embedding.dimensions):
            return run.warned(
                f"the classifier was trained on vectors of {classifier.embedder}, "
                f"{embedding.model} is loaded: words decide alone"
            ), None
        return await self._bench.with_vectors(run)

    def _labels(self, classifier: Classifier) -> tuple[str, ...]:
        between = self._parameters.between
        extra = (between,) if between and between not in classifier.labels else ()
        return (*classifier.labels, *extra)

    def _labelled(self, entry: Entry, row: Floats, labels: Sequence[str]) -> Entry:
        best = int(row.argmax())
        score = float(row[best])
        sure = not self._parameters.between or score >= self._parameters.sure
        label = labels[best] if sure else self._parameters.between
        return replace(entry, label=label, score=round(score, 4), by="classifier")

    async def _asked(self, run: Run, chances: Floats, labels: Sequence[str], most: int) -> Run:
        """Let the generator label the least sure entries; none that reads like an order to it."""
        prompt = run.task.prompts.get((self._parameters.prompt, run.language))
        unsure = [
            int(i)
            for i in chances.max(axis=1).argsort(kind="stable")
            if chances[i].max() < self._parameters.ask_below and not run.entries[i].directs
        ]
        asked = [run.entries[i] for i in sorted(unsure[:most])]
        if prompt is None:
            return run
        for start in range(0, len(asked), _ASKED_AT_ONCE):
            run = await self._answered(run, prompt, asked[start : start + _ASKED_AT_ONCE], labels)
        return replace(run, model=self._bench.services.chat.model) if asked else run

    async def _answered(
        self, run: Run, prompt: Prompt, asked: Sequence[Entry], labels: Sequence[str]
    ) -> Run:
        schema = _answer_schema([entry.marker for entry in asked], labels)
        lines = [f"[{e.marker}] {one_line(e.text, limit=_ASKED_CHARS)}" for e in asked]
        request = GenerationRequest(
            messages=prompt.messages(
                title=run.task.title.get(run.language, ""),
                data=fenced(lines),
                values={"count": str(len(asked))},
            ),
            max_tokens=16 * len(asked) + 16,
            json_schema=schema,
        )
        done = await self._bench.services.chat.complete(request, terms=run.terms, timing=run.timing)
        answer = parsed(done.text, schema).value or {}
        return relabelled(run.spent(done.usage), answer, labels)


def relabelled(run: Run, answer: Mapping[str, Any], labels: Sequence[str]) -> Run:
    """Return the run with the labels that ``answer`` gives by marker; others stay as they are."""
    entries = [
        replace(entry, label=answer[entry.marker], by="generator")
        if answer.get(entry.marker) in labels
        else entry
        for entry in run.entries
    ]
    return replace(run, entries=tuple(entries))


def distribution(entries: Sequence[Entry], labels: Sequence[str]) -> dict[str, int]:
    """Return how many entries have each label; a label nobody has counts 0."""
    found = Counter(entry.label for entry in entries)
    return {label: found.get(label, 0) for label in labels}


def label_rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the labels as results hold them; the id is the evidence."""
    return [
        {"id": entry.id, "label": entry.label, "score": entry.score, "by": entry.by}
        for entry in entries
    ]


def told_distribution(share: Mapping[str, int]) -> str:
    """Return a distribution in one line, for templates."""
    return ", ".join(f"{label} {count}" for label, count in share.items())


def _answer_schema(markers: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    choice = {"type": "string", "enum": list(labels)}
    return {
        "type": "object",
        "properties": {marker: choice for marker in markers},
        "required": list(markers),
        "additionalProperties": False,
    }

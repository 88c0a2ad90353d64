"""``classify``: labels every entry from its vector, and says how all of them are distributed.

No generator is asked for an entry whose label is sure; the few least sure may be put before it, each by
itself. Its word counts beside the classifier's, for what being right about two of three is worth. Fills ``labels`` (id, label, score, by) and ``distribution``; the score is a calibrated
probability. Parameters: ``classifier`` (an .npz of the pack, ``{language}`` is filled in), ``between``
(the label of entries no label is sure of) with ``sure`` (from which probability one is), ``ask`` (how
many unsure entries the generator may be asked about, unless the input's own ``ask`` says), ``ask_below``
(from which probability on an entry is sure), ``ask_weight`` (what the generator's word adds to the log
odds of its label), ``prompt`` (how it is asked).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from ondol.answers.prompts import fenced, one_line
from ondol.core.types import FloatMatrix, GenerationRequest
from ondol.tasks.classifier import Classifier, Floats, softmax
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_answers import parsed
from ondol.tasks.task_run import Entry, TaskRun
from ondol.tasks.templates import Prompt

_ASKED_CHARS = 200
_ANSWER_TOKENS = 24


class ClassifyParameters(Parameters):
    """See the module."""

    classifier: str = "classifiers/sentiment.{language}.npz"
    between: str = ""
    sure: float = Field(0.0, ge=0, le=1)
    ask: int = Field(0, ge=0, le=256)
    ask_below: float = Field(0.7, ge=0, le=1)
    ask_weight: float = Field(0.75, ge=0, le=20)
    prompt: str = ""
    rows: bool = True

    def needs(self) -> list[tuple[str, str, str]]:
        files = [("classifier", "classifier", self.classifier)]
        return [*files, ("prompt", "prompt", self.prompt)] if self.prompt or self.ask else files


class Classify:
    """The step."""

    def __init__(self, parameters: ClassifyParameters, bench: StepContext) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: TaskRun) -> TaskRun:
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
            run = await self._asked(run, chances, classifier.labels, most)
        labels = self._labels(classifier)
        share = distribution(run.entries, labels)
        run = run.telling(distribution=told_distribution(share)).adding(
            distribution=share, counted=len(run.entries)
        )
        return run.adding(labels=label_rows(run.entries)) if self._parameters.rows else run

    async def _vectors(
        self, run: TaskRun, classifier: Classifier
    ) -> tuple[TaskRun, FloatMatrix | None]:
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

    async def _asked(
        self, run: TaskRun, chances: Floats, labels: Sequence[str], most: int
    ) -> TaskRun:
        """Let the generator label the least sure entries."""
        prompt = run.task.prompts.get((self._parameters.prompt, run.language))
        unsure = [
            int(i)
            for i in chances.max(axis=1).argsort(kind="stable")
            if chances[i].max() < self._parameters.ask_below
        ]
        if prompt is None or not unsure:
            return run
        entries = list(run.entries)
        for place in sorted(unsure[:most]):
            entry = entries[place]
            run, vote = await self._vote(run, prompt, entry, labels)
            if vote is not None:
                entries[place] = weighed(
                    entry, chances[place], labels, vote=vote, weight=self._parameters.ask_weight
                )
        return replace(run, entries=tuple(entries), model=self._bench.services.chat.model)

    async def _vote(
        self, run: TaskRun, prompt: Prompt, entry: Entry, labels: Sequence[str]
    ) -> tuple[TaskRun, str | None]:
        """Return the label that the generator gives ``entry``, if it gives one."""
        schema = _answer_schema(entry.marker, labels)
        line = f"[{entry.marker}] {one_line(entry.text, limit=_ASKED_CHARS)}"
        request = GenerationRequest(
            messages=prompt.messages(
                title=run.task.title.get(run.language, ""),
                data=fenced([line]),
                values={"count": "1"},
            ),
            max_tokens=_ANSWER_TOKENS,
            json_schema=schema,
        )
        done = await self._bench.services.chat.complete(request, terms=run.terms, timing=run.timing)
        answer = parsed(done.text, schema).value or {}
        return run.spent(done.usage), answer.get(entry.marker)


def weighed(
    entry: Entry, chances: Floats, labels: Sequence[str], *, vote: str, weight: float
) -> Entry:
    """Return ``entry`` labelled by its ``chances`` (labels,) and a vote that adds to the log odds."""
    odds = np.log(np.maximum(chances, 1e-12))
    odds[labels.index(vote)] += weight
    shares = softmax(odds[None, :], 1.0)[0]
    best = int(shares.argmax())
    return replace(entry, label=labels[best], score=round(float(shares[best]), 4), by="generator")


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


def _answer_schema(marker: str, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {marker: {"type": "string", "enum": list(labels)}},
        "required": [marker],
        "additionalProperties": False,
    }

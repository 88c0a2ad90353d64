"""``generate``: puts what was chosen and found before the generator and takes a schema-bound answer.

The schema is the pack's, with the markers that the prompt really holds filled in; an answer that was
cut off counts as far as it is whole. A prompt that is more than the generator can read is put again
with every text in it cut to half, at most three times. Parameters: ``answer`` (a JSON schema of the pack), ``prompt`` (a
template, the task's own by default), ``each`` = "groups" (one object per group instead of one in all),
``into`` (result key of those objects), ``tokens`` (longest answer, the task's limit by default).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from ondol.answers.prompts import fenced
from ondol.core.errors import TextTooLong
from ondol.core.types import GenerationRequest
from ondol.runtime.generation.chat import Completion
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps.step import Parameters
from ondol.tasks.task_answers import filled, parsed
from ondol.tasks.task_run import TaskRun
from ondol.tasks.templates import told_value

CUT = "the answer reached its limit and was cut off; what was whole is kept"
EMPTY = "the generator's answer did not fit its schema and was left out"
SHORTENED = "the texts were more than the generator can read at once; each was cut shorter"
_SHARES = (1.0, 0.5, 0.25, 0.125)
_VALUE_CHARS = 2_000
_LEAST_CHARS = 40


class GenerateParameters(Parameters):
    """See the module."""

    answer: str
    prompt: str = ""
    each: Literal["", "groups"] = ""
    into: str = ""
    tokens: int = Field(0, ge=0, le=8_000)

    def needs(self) -> list[tuple[str, str, str]]:
        return [("answer", "schema", self.answer), ("prompt", "prompt", self.prompt)]


class Generate:
    """The step."""

    def __init__(self, parameters: GenerateParameters, bench: StepContext) -> None:
        self._parameters = parameters
        self._bench = bench

    async def run(self, run: TaskRun) -> TaskRun:
        """Ask the generator; nothing to ask about is a warning and no request."""
        schema = self._schema(run)
        if schema is None or not run.lines:
            return self._taken(run.warned("there was nothing to put before the generator"), {})
        before = self._bench.clock.monotonic()
        run, done = await self._answered(run, schema)
        spent = (self._bench.clock.monotonic() - before) * 1e3
        answer = parsed(done.text, schema)
        run = run.spent(done.usage)
        timings = {**run.timings, "generate_ms": run.timings.get("generate_ms", 0.0) + spent}
        run = replace(run, timings=timings, dropped=run.dropped + answer.left_out)
        if answer.cut or done.finish_reason == "length":
            run = run.warned(CUT)
        if answer.value is None:
            run = run.warned(EMPTY)
        return self._taken(replace(run, model=self._bench.services.chat.model), answer.value or {})

    async def _answered(
        self, run: TaskRun, schema: Mapping[str, Any]
    ) -> tuple[TaskRun, Completion]:
        """Return the answer, and the run with a warning where texts had to be cut for it."""
        *more, last = _SHARES
        for share in more:
            try:
                done = await self._asked(run, schema, share)
            except TextTooLong:
                continue
            return (run if share == 1.0 else run.warned(SHORTENED)), done
        return run.warned(SHORTENED), await self._asked(run, schema, last)

    async def _asked(self, run: TaskRun, schema: Mapping[str, Any], share: float) -> Completion:
        """Ask with the first ``share`` of every text; each marker stays in the prompt."""
        name = self._parameters.prompt or run.task.name.partition(".")[2]
        prompt = run.task.prompts[name, run.language]
        inputs = {
            key: told_value(str(value), limit=int(_VALUE_CHARS * share))
            for key, value in run.input.items()
            if isinstance(value, str | int | float)
        }
        lines = run.lines if share == 1.0 else [_shortened(line, share) for line in run.lines]
        request = GenerationRequest(
            messages=prompt.messages(
                title=run.task.title.get(run.language, ""),
                data=fenced(lines),
                values={
                    **dict.fromkeys(("groups", "aspects", "distribution", "fields"), ""),
                    **inputs,
                    **run.values,
                },
            ),
            max_tokens=self._parameters.tokens or run.task.limits.answer_tokens,
            json_schema=schema,
        )
        chat = self._bench.services.chat
        return await chat.complete(request, terms=run.terms, timing=run.timing)

    def _schema(self, run: TaskRun) -> dict[str, Any] | None:
        schema = run.task.schemas[self._parameters.answer]
        if self._parameters.each != "groups":
            found: dict[str, Any] | None = filled(schema, run.shown, language=run.language)
            return found
        parts = {
            group.key: filled(schema, group.markers, language=run.language) for group in run.groups
        }
        parts = {key: part for key, part in parts.items() if part is not None}
        if not parts:
            return None
        return {
            "type": "object",
            "properties": parts,
            "required": list(parts),
            "additionalProperties": False,
        }

    def _taken(self, run: TaskRun, answer: Mapping[str, Any]) -> TaskRun:
        """Return the run with the answer's keys in its result, or one row per group."""
        if self._parameters.each != "groups":
            return run.adding(**answer)
        rows = [
            {
                "aspect": group.key,
                "title": group.title,
                "polarity": group.polarity,
                **answer[group.key],
            }
            for group in run.groups
            if group.key in answer
        ]
        return run.adding(**{self._parameters.into or "claims": rows})


def _shortened(line: str, share: float) -> str:
    """Return the first ``share`` of a line; a few words with its marker always stay."""
    most = max(_LEAST_CHARS, int(len(line) * share))
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"

"""Runs declared tasks: checks the input, passes it through the steps, returns a schema-valid result.

Owns no model: steps reach services through the workbench. One run is bounded in time, its result holds
only what the output schema names, and every claim in it has evidence.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import BackendError, DeadlineExceeded, InvalidInput
from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.types import Usage
from ondol.language.language import detect
from ondol.tasks.classifier_training import Trained, train
from ondol.tasks.declaration import Language, Task
from ondol.tasks.entries import check_bounds, with_entries
from ondol.tasks.json_schema import misfits, told
from ondol.tasks.pack_library import PackLibrary
from ondol.tasks.step_context import StepContext
from ondol.tasks.steps import STEPS
from ondol.tasks.task_run import TaskRun


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a run came to. ``result`` fits the task's output schema; ``timings`` are milliseconds.

    ``evidence`` maps each marker of the prompt to an id, or to document, page, offsets and quote;
    ``dropped_claims`` were generated and had no evidence that carries them.
    """

    task: str
    version: str
    language: str
    result: Mapping[str, Any]
    evidence: Mapping[str, Any]
    dropped_claims: int
    warnings: tuple[str, ...]
    notice: str
    usage: Usage
    timings: Mapping[str, float]
    model: str


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as it is listed."""

    name: str
    pack: str
    version: str
    title: Mapping[str, str]
    lane: str
    languages: tuple[str, ...]
    steps: tuple[str, ...]
    notice: Mapping[str, str]
    limits: Mapping[str, Any]
    built_in: bool
    input: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)


_SAMPLED = 20
"""Texts from which an input's language is told."""


class TaskService:
    """The tasks of ``shelf``, run with ``bench``."""

    def __init__(
        self, shelf: PackLibrary, bench: StepContext, *, clock: Clock | None = None
    ) -> None:
        self._shelf = shelf
        self._bench = bench
        self._clock = clock or SystemClock()

    def task(self, name: str) -> Task:
        """Return a task; raises ``NotFound``."""
        return self._shelf.task(name)

    def describe(self, name: str | None = None) -> list[TaskInfo]:
        """Return what there is, in the order of names; one task with its schemas."""
        if name is not None:
            task = self._shelf.task(name)
            return [replace(_info(task), input=task.input, output=task.output)]
        return [_info(task) for task in self._shelf.tasks.values()]

    def validate(self, name: str, input: Any) -> Mapping[str, Any]:
        """Return ``input`` if the task can take it; raises ``InvalidInput`` saying where it strays."""
        return _validated(self._shelf.task(name), input)

    def prefix_key(self, name: str, input: Any) -> str:
        """Return what runs have in common whose prompts begin alike: task, language, collections."""
        task = self._shelf.task(name)
        given = input if isinstance(input, Mapping) else {}
        named = [
            str(given.get(getattr(step.parameters, "field", ""), ""))
            for step in task.steps
            if step.use == "retrieve"
        ]
        parts = [task.name, task.version, _language(task, given), *named]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    async def run(
        self,
        name: str | Task,
        input: Any,
        *,
        terms: RequestTerms | None = None,
        timing: Timing | None = None,
    ) -> TaskResult:
        """Run one task on one input.

        Raises ``NotFound`` (task, collection), ``InvalidInput`` (the input strays), ``Refused`` and
        ``BackendError`` of the services used, ``DeadlineExceeded`` past the task's seconds.
        """
        task = name if isinstance(name, Task) else self._shelf.task(name)
        input = _validated(task, input)
        run = TaskRun(
            task=task,
            language=_language(task, input),
            input=input,
            terms=terms or RequestTerms(lane=task.lane),
            timing=timing or Timing(),
        )
        started = self._clock.monotonic()
        seconds = min(task.limits.seconds, self._bench.settings.seconds)
        try:
            async with asyncio.timeout(seconds):
                run = await self._stepped(run)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{task.name} took longer than {seconds:g} s",
                hint="send less, raise tasks.seconds, or run it as a job",
                code="task_timeout",
            ) from None
        total = (self._clock.monotonic() - started) * 1e3
        return _finished(replace(run, timings={**run.timings, "total_ms": total}))

    async def train(
        self, name: str, rows: Sequence[Mapping[str, Any]], *, language: str, about: str = ""
    ) -> Trained:
        """Train the classifier of a task on labelled rows; see ``training.train``."""
        return await train(
            self._shelf.task(name), rows, language=language, bench=self._bench, about=about
        )

    async def _stepped(self, run: TaskRun) -> TaskRun:
        run = await with_entries(run, self._bench)
        if run.entries:
            # Where they lie in a collection, its name was all there was to go by.
            texts = [{"text": entry.text} for entry in run.entries[:_SAMPLED]]
            language = _language(run.task, {"language": run.input.get("language"), "texts": texts})
            run = replace(run, language=language)
        for step in run.task.steps:
            before = self._clock.monotonic()
            run = await STEPS[step.use].make(step.parameters, self._bench).run(run)
            spent = run.timings.get(f"{step.use}_step_ms", 0.0)
            spent += (self._clock.monotonic() - before) * 1e3
            run = replace(run, timings={**run.timings, f"{step.use}_step_ms": spent})
        return run


def _validated(task: Task, input: Any) -> Mapping[str, Any]:
    if not isinstance(input, Mapping):
        raise InvalidInput(
            f"the input of {task.name} is a {type(input).__name__}",
            hint="send a JSON object",
            param="input",
        )
    check_bounds(task, input)
    found = []
    for one in misfits(input, task.input):
        found.append(one)
        if len(found) > 5:
            break
    if found:
        raise InvalidInput(
            f"the input does not fit {task.name}: {told(found)}",
            hint=f"see `ondol task show {task.name}` for what it takes",
            code="invalid_task_input",
            param=f"input{found[0][0]}",
        )
    return input


def _language(task: Task, input: Mapping[str, Any]) -> Language:
    """Return the language asked for, else that of the texts, else the pack's first."""
    asked = input.get("language")
    for language in task.languages:
        if language == asked:
            return language
    guess = detect(_sample(input))
    return next((one for one in task.languages if one == guess), task.languages[0])


def _sample(input: Mapping[str, Any]) -> str:
    texts: list[str] = []
    for value in input.values():
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list | tuple):
            rows = [one for one in value[:_SAMPLED] if isinstance(one, Mapping)]
            texts += [str(one.get("text", "")) for one in rows]
    return " ".join(texts)[:6_000]


def _nothing(schema: Mapping[str, Any]) -> Any:
    """Return what stands for "none found" under ``schema``: no rows, or null where that is allowed."""
    kind = schema.get("type")
    if kind == "array":
        return []
    return None if isinstance(kind, list) and "null" in kind else _MISSING


_MISSING = object()


def _finished(run: TaskRun) -> TaskResult:
    """Return the run as a result; what the schema does not name stays inside."""
    properties: Mapping[str, Any] = run.task.output.get("properties", {})
    nothing = {key: _nothing(inner) for key, inner in properties.items()}
    result = {
        key: run.result.get(key, nothing[key])
        for key in properties
        if key in run.result or nothing[key] is not _MISSING
    }
    wrong = next(misfits(result, run.task.output), None)
    if wrong is not None:
        raise BackendError(
            f"the result of {run.task.name} does not fit its own schema: {told([wrong])}",
            hint="mend the pack's output schema: it must allow what its steps give",
            code="result_misfit",
        )
    cited = {marker: evidence.told() for marker, evidence in run.evidence.items()}
    return TaskResult(
        task=run.task.name,
        version=run.task.version,
        language=run.language,
        result=result,
        evidence=cited,
        dropped_claims=run.dropped,
        warnings=run.warnings,
        notice=run.task.notice.get(run.language, ""),
        usage=run.usage,
        timings={key: round(value, 1) for key, value in run.timings.items()},
        model=run.model,
    )


def _info(task: Task) -> TaskInfo:
    return TaskInfo(
        name=task.name,
        pack=task.pack,
        version=task.version,
        title=task.title,
        lane=task.lane,
        languages=tuple(task.languages),
        steps=tuple(step.use for step in task.steps),
        notice=task.notice,
        limits=asdict(task.limits),
        built_in=task.built_in,
    )

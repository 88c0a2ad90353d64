"""What jobs need of a task: that its name and input can be checked, and that one item can be run.

Jobs know no task; who runs tasks fits this protocol.

Task packs as the work of jobs: one item is one run of one task.

Work without models, for tests and dry runs: says an input's text backwards.

Records the order of its calls, raises what a script says, and waits on a gate that a test holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

from ondol.core.errors import InvalidInput, NotFound
from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms


@dataclass(frozen=True, slots=True)
class WorkOutput:
    """What an item came to: the task's ``result``, and what stands ``beside`` it (evidence, usage…).

    Both are JSON values.
    """

    result: Mapping[str, Any]
    beside: Mapping[str, Any] = field(default_factory=dict)


class Work(Protocol):
    """Runs one item of a named task."""

    def require(self, task: str) -> None:
        """Raise ``NotFound`` unless there is a task ``task``."""
        ...

    def validate(self, task: str, input: Mapping[str, Any]) -> None:
        """Raise ``InvalidInput`` for an input that the task cannot take; quick, any thread."""
        ...

    def prefix_key(self, task: str, input: Mapping[str, Any]) -> str:
        """Return what inputs have in common whose prompts begin alike; quick, any thread."""
        ...

    async def run(
        self, task: str, input: Mapping[str, Any], *, terms: RequestTerms, timing: Timing
    ) -> WorkOutput:
        """Run one item; raises an ``OndolError`` that says whether trying again may help."""
        ...


class WorkResult(Protocol):
    """What a run of a task returns: a dataclass with ``result`` and what stands beside it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class TaskRunner(Protocol):
    """What is needed of the task service."""

    def task(self, name: str, /) -> object:
        """Return a task; raises ``NotFound``."""
        ...

    def validate(self, name: str, input: Any, /) -> object: ...
    def prefix_key(self, name: str, input: Any, /) -> str: ...
    async def run(
        self, name: str, input: Any, /, *, terms: RequestTerms, timing: Timing
    ) -> WorkResult: ...


class TaskWork:
    """Runs the tasks of what ``tasks`` returns, which is asked for only when it is needed."""

    def __init__(self, tasks: Callable[[], TaskRunner]) -> None:
        self._tasks = tasks

    def require(self, task: str) -> None:
        self._tasks().task(task)

    def validate(self, task: str, input: Mapping[str, Any]) -> None:
        self._tasks().validate(task, input)

    def prefix_key(self, task: str, input: Mapping[str, Any]) -> str:
        return self._tasks().prefix_key(task, input)

    async def run(
        self, task: str, input: Mapping[str, Any], *, terms: RequestTerms, timing: Timing
    ) -> WorkOutput:
        found = asdict(await self._tasks().run(task, input, terms=terms, timing=timing))
        return WorkOutput(found.pop("result"), found)


FAKE_TASK = "fake.reverse"
Script = Callable[[Mapping[str, Any], int], Exception | None]


class FakeWork:
    """A ``Work`` with the one task ``fake.reverse``: ``{"text", "shared"?}`` → ``{"text", "length"}``.

    ``script`` gets an input and how often it was run before, and returns what to raise. ``gate`` (set
    by default) is waited on by every run; ``running`` counts those inside, ``peak`` the most at once.
    """

    def __init__(self, *, script: Script | None = None, gate: asyncio.Event | None = None) -> None:
        self._script = script
        self.gate = gate
        self.order: list[str] = []
        self.terms: list[RequestTerms] = []
        self.running = self.peak = 0

    def require(self, task: str) -> None:
        if task != FAKE_TASK:
            raise NotFound(
                f"there is no task {task[:80]!r}",
                hint=f"the tasks are {FAKE_TASK}",
                code="unknown_task",
                param="task",
            )

    def validate(self, task: str, input: Mapping[str, Any]) -> None:
        if not isinstance(input.get("text"), str):
            raise InvalidInput("text is missing", hint="send text", param="text")

    def prefix_key(self, task: str, input: Mapping[str, Any]) -> str:
        return str(input.get("shared", ""))

    async def run(
        self, task: str, input: Mapping[str, Any], *, terms: RequestTerms, timing: Timing
    ) -> WorkOutput:
        text: str = input["text"]
        before = self.order.count(text)
        self.order.append(text)
        self.terms.append(terms)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            error = self._script(input, before) if self._script is not None else None
            if error is not None:
                raise error
            return WorkOutput({"text": text[::-1], "length": len(text)}, {"model": "fake"})
        finally:
            self.running -= 1

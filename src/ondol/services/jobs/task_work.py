"""Task packs as the work of jobs: one item is one run of one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from ondol.core.observe import Timing
from ondol.core.terms import Terms
from ondol.services.jobs.work import Worked


class TaskResult(Protocol):
    """What a run of a task returns: a dataclass with ``result`` and what stands beside it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Tasks(Protocol):
    """What is needed of the task service."""

    def task(self, name: str, /) -> object:
        """Return a task; raises ``NotFound``."""
        ...

    def validate(self, name: str, input: Any, /) -> object: ...
    def prefix_key(self, name: str, input: Any, /) -> str: ...
    async def run(
        self, name: str, input: Any, /, *, terms: Terms, timing: Timing
    ) -> TaskResult: ...


class TaskWork:
    """Runs the tasks of what ``tasks`` returns, which is asked for only when it is needed."""

    def __init__(self, tasks: Callable[[], Tasks]) -> None:
        self._tasks = tasks

    def require(self, task: str) -> None:
        self._tasks().task(task)

    def validate(self, task: str, input: Mapping[str, Any]) -> None:
        self._tasks().validate(task, input)

    def prefix_key(self, task: str, input: Mapping[str, Any]) -> str:
        return self._tasks().prefix_key(task, input)

    async def run(
        self, task: str, input: Mapping[str, Any], *, terms: Terms, timing: Timing
    ) -> Worked:
        found = asdict(await self._tasks().run(task, input, terms=terms, timing=timing))
        return Worked(found.pop("result"), found)

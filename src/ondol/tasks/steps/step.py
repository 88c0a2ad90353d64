"""What a step is: one class that takes a run and returns the run with more in it.

Parameters are a frozen pydantic model, checked when the pack is loaded; unknown ones are errors.
"""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel, ConfigDict

from ondol.tasks.declaration import Task
from ondol.tasks.task_run import TaskRun


class Parameters(BaseModel):
    """Base of all parameters: frozen, strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def needs(self) -> list[tuple[str, str, str]]:
        """Return the files of the pack it names, as (parameter, kind, relative path)."""
        return []


class Step(Protocol):
    """One part of an analysis."""

    async def run(self, run: TaskRun) -> TaskRun:
        """Return ``run`` with what this step adds; raises what the service it uses raises."""
        ...


def result_keys(task: Task) -> frozenset[str]:
    """Return the keys that the task's output may hold."""
    return frozenset(task.output.get("properties", {}))

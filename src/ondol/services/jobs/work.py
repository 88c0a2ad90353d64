"""What jobs need of a task: that its name and input can be checked, and that one item can be run.

Jobs know no task; who runs tasks fits this protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ondol.core.observe import Timing
from ondol.core.terms import Terms


@dataclass(frozen=True, slots=True)
class Worked:
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
        self, task: str, input: Mapping[str, Any], *, terms: Terms, timing: Timing
    ) -> Worked:
        """Run one item; raises an ``OndolError`` that says whether trying again may help."""
        ...

"""Work without models, for tests and dry runs: says an input's text backwards.

Records the order of its calls, raises what a script says, and waits on a gate that a test holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ondol.core.errors import InvalidInput, NotFound
from ondol.core.observe import Timing
from ondol.core.terms import Terms
from ondol.services.jobs.work import Worked

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
        self.terms: list[Terms] = []
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
        self, task: str, input: Mapping[str, Any], *, terms: Terms, timing: Timing
    ) -> Worked:
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
            return Worked({"text": text[::-1], "length": len(text)}, {"model": "fake"})
        finally:
            self.running -= 1

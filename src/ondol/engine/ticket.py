"""One request from its admission to its end, as the lanes keep it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ondol.core.terms import Terms
from ondol.core.timers import Timer
from ondol.engine.cost import Estimate
from ondol.engine.policy import Waiting

Size = Callable[[int], Estimate]
"""What a request would take if it began beside so many others that decode."""


@dataclass(slots=True, eq=False)
class Ticket:
    """Times are monotonic seconds. ``promise_ms`` is the deadline it is judged by, whoever set it.

    ``produced`` is the number of tokens so far, written by the thread that runs it; ``others`` how
    many decoded when it was ``started``.
    """

    waiting: Waiting
    terms: Terms
    size: Size
    estimate: Estimate
    granted: asyncio.Future[None]
    promise_ms: float | None = None
    predicted_ms: float | None = None
    others: int = 0
    started: float = 0.0
    first_token: float | None = None
    produced: int = 0
    alarm: Timer | None = None

    @property
    def lane(self) -> str:
        return self.waiting.lane

    @property
    def reading(self) -> bool:
        return self.first_token is None

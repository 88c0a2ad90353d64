"""One generation while it runs, and the account of one request from its arrival to its end.

A ``Run`` owns the switch that stops the backend, the events on their way to the caller, and the
limits that may end it. Knows no queue.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from ondol.core.cancel import CancelToken
from ondol.core.errors import DeadlineExceeded, OndolError
from ondol.core.observe import Timing
from ondol.core.terms import Terms
from ondol.core.types import GenerationEvent, GenerationRequest, Usage
from ondol.engine.relay import Relay
from ondol.engine.ticket import Ticket

RELAY_EVENTS = 64


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """From when a request runs, the longest wait for the first token, and for all of it."""

    first_token_seconds: float = 120.0
    total_seconds: float = 300.0


@dataclass(slots=True)
class Account:
    """What one request cost so far; settled exactly once."""

    terms: Terms
    timing: Timing
    arrived: float
    promise_ms: float | None
    ticket: Ticket | None = None
    predicted_ms: float | None = None
    usage: Usage = field(default_factory=Usage)
    has_output: bool = False
    settled: bool = False


class Run:
    """One generation in its thread: its switch, its events, and the limits that may end it."""

    def __init__(
        self, request: GenerationRequest, ticket: Ticket, limits: GenerationLimits
    ) -> None:
        self.request = request
        self.ticket = ticket
        self.times: list[float] = []
        self.company = 0
        self.cancel = CancelToken()
        self.relay: Relay[GenerationEvent] = Relay(size=RELAY_EVENTS)
        loop = asyncio.get_running_loop()
        self._first = loop.call_later(
            limits.first_token_seconds,
            self._expire,
            "first_token",
            limits.first_token_seconds,
        )
        self._total = loop.call_later(
            limits.total_seconds, self._expire, "total", limits.total_seconds
        )

    def saw_output(self) -> None:
        self._first.cancel()

    def finish(self) -> None:
        """No limit applies any more."""
        self._first.cancel()
        self._total.cancel()

    def abort(self, error: OndolError) -> None:
        """End the stream with ``error`` and stop the backend."""
        self.finish()
        self.relay.end(error)
        self.leave()

    def leave(self) -> None:
        """The caller is gone: stop the backend and drop what it still yields."""
        self.finish()
        self.relay.stop()
        self.cancel.cancel()

    def write_pace(self, timing: Timing) -> None:
        """Write the pace of tokens: mean time per output token, and the gaps between them."""
        if len(self.times) < 2:
            return
        gaps = np.diff(self.times) * 1e3
        timing.tpot_ms = float(gaps.mean())
        timing.itl_p50_ms, timing.itl_p99_ms = (float(q) for q in np.quantile(gaps, (0.5, 0.99)))

    def _expire(self, name: str, seconds: float) -> None:
        self.abort(
            DeadlineExceeded(
                f"the generation ran into its {name.replace('_', ' ')} limit of {seconds:g} s",
                hint=f"ask for less, or raise generation.{name}_seconds",
                code=f"{name}_deadline_exceeded",
            )
        )

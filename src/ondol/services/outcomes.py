"""Tells the observer how a request ended, exactly once, however it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import DeadlineExceeded, OndolError, Refused
from ondol.core.observe import Observer, RequestFinished, RequestOutcome, Timing


@contextmanager
def finished(
    observer: Observer, *, lane: str, model: str, timing: Timing, clock: Clock | None = None
) -> Iterator[Callable[..., None]]:
    """Observe one request around a block; call the yielded function to add token counts."""
    now = (clock or SystemClock()).monotonic
    started = now()
    counts: dict[str, int] = {}

    outcome: RequestOutcome = "ok"
    code = ""
    try:
        yield counts.update
    except BaseException as error:
        outcome = outcome_name(error)
        code = error.code if isinstance(error, OndolError) else ""
        raise
    finally:
        timing.total_ms = (now() - started) * 1e3
        observer.observe(
            RequestFinished(
                lane=lane, model=model, outcome=outcome, timing=timing, code=code, **counts
            )
        )


def outcome_name(error: BaseException) -> RequestOutcome:
    """Return the word metrics and logs use for how ``error`` ended a request."""
    if isinstance(error, Refused):
        return "refused"
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "failed"

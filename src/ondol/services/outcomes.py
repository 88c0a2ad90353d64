"""Tells the observer how a request ended, exactly once, however it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

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
    event = RequestFinished(lane=lane, model=model, outcome="ok", timing=timing)

    def note(**fields: int) -> None:
        nonlocal event
        event = replace(event, **fields)  # type: ignore[arg-type]

    outcome: RequestOutcome = "ok"
    code = ""
    try:
        yield note
    except BaseException as error:
        outcome = outcome_name(error)
        code = error.code if isinstance(error, OndolError) else ""
        raise
    finally:
        timing.total_ms = (now() - started) * 1e3
        observer.observe(replace(event, outcome=outcome, code=code))


def outcome_name(error: BaseException) -> RequestOutcome:
    """Return the word metrics and logs use for how ``error`` ended a request."""
    if isinstance(error, Refused):
        return "refused"
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "failed"

"""Tells the observer how a request ended, exactly once, however it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import RequestOutcome
from ondol.core.events import Observer, RequestFinished, Timing, counted_as


@contextmanager
def finished(
    observer: Observer,
    *,
    lane: str | None,
    model: str,
    timing: Timing,
    promise_ms: float | None = None,
    clock: Clock | None = None,
) -> Iterator[Callable[..., None]]:
    """Observe one request around a block; call the yielded function to add token counts.

    ``promise_ms`` is within how many milliseconds the lane promises the whole answer. Work for
    another request, without a lane of its own, is not observed: that request is.
    """
    now = (clock or SystemClock()).monotonic
    started = now()
    counts = {"tokens_in": 0}
    outcome: RequestOutcome = "ok"
    code = ""
    try:
        yield counts.update
    except BaseException as error:
        outcome, code = counted_as(error)
        raise
    finally:
        timing.total_ms = (now() - started) * 1e3
        if lane is not None:
            observer.observe(
                RequestFinished(
                    lane=lane,
                    model=model,
                    outcome=outcome,
                    timing=timing,
                    code=code,
                    tokens_in=counts["tokens_in"],
                    deadline_ms=promise_ms,
                )
            )

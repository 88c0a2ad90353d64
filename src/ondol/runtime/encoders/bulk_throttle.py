"""How long bulk work may hold the encoder while urgent work keeps coming.

A batch that runs cannot be stopped, so a question that arrives waits for its end. For a while after
each urgent item a bulk batch is therefore cut to what takes a few milliseconds, at the speed seen so
far, and the encoder is kept free a moment for the next question, which a caller that asks again and
again sends at once; but not for ever. Used under the worker's lock. After Iyer & Druschel 2001,
anticipatory scheduling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ondol.runtime.encoders.batching import Budget

_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """A bulk batch takes at most ``slice_seconds`` until ``seconds`` after the last urgent item.

    While urgent items come within ``asking_seconds`` of each other, the encoder is left free for
    ``rest_seconds`` before a bulk batch, unless ``rests`` urgent batches have run since the last.
    """

    slice_seconds: float = 0.01
    seconds: float = 5.0
    rest_seconds: float = 0.015
    rests: int = 3
    asking_seconds: float = 1.0


class BulkThrottle:
    """The budget of a bulk batch; knows how fast the encoder is from the batches it ran."""

    def __init__(self, patience: ThrottleLimits) -> None:
        self._patience = patience
        self._urgent_at = float("-inf")
        self._tokens_per_second = 0.0

    def urgent_came(self, now: float) -> None:
        """Note that somebody waits for an answer, at ``now`` in the clock's seconds."""
        self._urgent_at = now

    def ran(self, tokens: int, seconds: float) -> None:
        """Learn from a batch that cost ``tokens`` and took ``seconds``."""
        if tokens <= 0 or seconds <= 0:
            return
        speed = tokens / seconds
        known = self._tokens_per_second
        self._tokens_per_second = known + _SMOOTHING * (speed - known) if known else speed

    def rest(self, *, now: float, streak: int) -> float:
        """Return for how long to wait for a question before bulk work, in seconds.

        ``streak`` is the number of urgent batches in a row while bulk work waited.
        """
        if streak >= self._patience.rests or now - self._urgent_at > self._patience.asking_seconds:
            return 0.0
        return self._patience.rest_seconds

    def bulk(self, budget: Budget, *, now: float) -> Budget:
        """Return what a bulk batch may cost at ``now``: ``budget``, or a slice of time of it."""
        if not self._tokens_per_second or now - self._urgent_at > self._patience.seconds:
            return budget
        tokens = min(budget.tokens, self._tokens_per_second * self._patience.slice_seconds)
        return replace(budget, tokens=max(1, int(tokens)))

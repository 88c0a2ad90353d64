"""What a batch may cost now: the configured budget, less where memory is short.

A quarter of the tokens while little memory is free, half while it is getting tight, and half again
for a while after each time memory ran out. Owns the look at free memory, which it takes rarely.
Used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ondol.core.clock import Clock
from ondol.engine.batching import Budget

LOOK_SECONDS = 0.25
RECOVERY_SECONDS = 30.0
MOST_HALVINGS = 4

_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Free memory in MB below which a batch gets a quarter (``low``) or half (``tight``)."""

    low_mb: int = 1024
    tight_mb: int = 2048

    def share(self, free_bytes: int | None) -> float:
        """Return the part of the budget that goes with ``free_bytes``; all of it where unknown."""
        if free_bytes is None or free_bytes >= self.tight_mb * _MB:
            return 1.0
        return 0.5 if free_bytes >= self.low_mb * _MB else 0.25


class AdaptiveBudget:
    """The budget of the next batch, from ``full`` downwards."""

    def __init__(
        self,
        full: Budget,
        *,
        limits: MemoryLimits,
        free_bytes: Callable[[], int | None],
        clock: Clock,
    ) -> None:
        self._full = full
        self._limits = limits
        self._free_bytes = free_bytes
        self._clock = clock
        self._looked_at = float("-inf")
        self._share = 1.0
        self._halvings = 0
        self._ran_out_at = 0.0
        self._current = full

    @property
    def current(self) -> Budget:
        """The budget as it was last worked out."""
        return self._current

    @property
    def reason(self) -> str:
        """Why it is what it is: ``out_of_memory``, ``little_memory``, or ``whole``."""
        if self._halvings:
            return "out_of_memory"
        return "little_memory" if self._share < 1 else "whole"

    def look(self) -> bool:
        """Work it out anew, at most every ``LOOK_SECONDS``; returns whether it has changed."""
        now = self._clock.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        self._share = self._limits.share(self._free_bytes())
        if self._halvings and now - self._ran_out_at >= RECOVERY_SECONDS:
            self._halvings -= 1
            self._ran_out_at = now
        return self._work_out()

    def ran_out(self) -> bool:
        """Halve it: a batch found no memory. Each halving ends after ``RECOVERY_SECONDS``."""
        self._halvings = min(self._halvings + 1, MOST_HALVINGS)
        self._ran_out_at = self._clock.monotonic()
        return self._work_out()

    def _work_out(self) -> bool:
        tokens = max(1, int(self._full.tokens * self._share / 2**self._halvings))
        changed = tokens != self._current.tokens
        self._current = replace(self._full, tokens=tokens)
        return changed

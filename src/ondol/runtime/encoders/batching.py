"""Which waiting items run next: a pure function of (queue, budget, now).

The oldest item of the most urgent class is always in the batch, so nobody starves; its mates are
the items nearest to it in length, so that padding stays small. Bulk work that has waited long gets
one batch in so many. Knows no thread and no model. After nano-vllm's scheduler: it decides, the
worker does.

What a batch may cost now: the configured budget, less where memory is short.

A quarter of the tokens while little memory is free, half while it is getting tight, and half again
for a while after each time memory ran out. Owns the look at free memory, which it takes rarely.
Used by one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ondol.core.clock import Clock

WINDOW = 512
"""How many waiting items are looked at for one batch, so that a choice stays cheap."""

SLACK_TOKENS = 16
SLACK_SHARE = 0.25


class BatchCandidate(Protocol):
    """What the policy needs to know of a waiting item; ``arrived`` is in the clock's seconds."""

    @property
    def tokens(self) -> int: ...
    @property
    def urgent(self) -> bool: ...
    @property
    def arrived(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Aging:
    """Bulk work that waited ``seconds`` gets one batch in ``every`` while urgent work keeps coming."""

    seconds: float = 5.0
    every: int = 8


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one batch: what it may cost in tokens, and items.

    ``padded`` and ``buckets`` say how the encoder computes a batch, see ``batch_cost``.
    """

    tokens: int
    items: int
    padded: bool = True
    buckets: tuple[int, ...] = ()

    def length(self, tokens: int) -> int:
        """Return what an item of ``tokens`` is computed as: the next bucket, where there are any."""
        at = bisect_left(self.buckets, tokens)
        return self.buckets[at] if at < len(self.buckets) else tokens


def batch_cost(tokens: Iterable[int], budget: Budget) -> int:
    """Return the tokens a batch is computed as: items x longest if padded, else their sum."""
    lengths = [budget.length(count) for count in tokens]
    return len(lengths) * max(lengths, default=0) if budget.padded else sum(lengths)


def next_batch(
    waiting: Sequence[BatchCandidate],
    budget: Budget,
    *,
    now: float = 0.0,
    urgent_streak: int = 0,
    aging: Aging | None = None,
    bulk: Budget | None = None,
) -> list[int]:
    """Return the indices of the items to run now, in queue order; empty only when none wait.

    ``waiting`` is in order of arrival within each class. Urgent items run before the others and
    never share a batch with them; ``urgent_streak`` batches of urgent work in a row let bulk work
    that has aged go first once. A batch of bulk work is limited by ``bulk`` instead. An item that
    alone exceeds the token budget runs alone.
    """
    if not waiting:
        return []
    urgent = _class_to_run(waiting, now, urgent_streak, aging or Aging())
    budget = bulk if bulk is not None and not urgent else budget
    members = [i for i, item in enumerate(waiting) if item.urgent == urgent][:WINDOW]
    lengths = [budget.length(waiting[i].tokens) for i in members]
    chosen = _nearest(lengths, budget) if budget.padded else _oldest(lengths, budget)
    return sorted(members[i] for i in chosen)


def _class_to_run(waiting: Sequence[BatchCandidate], now: float, streak: int, aging: Aging) -> bool:
    """Return whether urgent work runs now: yes, if there is any and no bulk item's turn has come."""
    if not any(item.urgent for item in waiting):
        return False
    oldest = next((item for item in waiting if not item.urgent), None)
    if oldest is None or streak < aging.every - 1:
        return True
    return now - oldest.arrived < aging.seconds


def _nearest(lengths: Sequence[int], budget: Budget) -> list[int]:
    """Cut the items, sorted by length, into batches from the longest down; return that of item 0.

    Taking one whole batch out leaves the other cuts as they were, so a queue that drains is cut as
    one sorted list would be.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    longest = 0
    for i in order:
        if batch and not _fits(lengths[i], longest, len(batch), budget):
            if 0 in batch:
                return batch
            batch = []
        if not batch:
            longest = lengths[i]
        batch.append(i)
    return batch


def _fits(length: int, longest: int, count: int, budget: Budget) -> bool:
    """Whether one more, no longer than the others, fits: room for it, and little padding in it."""
    if count >= budget.items or longest * (count + 1) > budget.tokens:
        return False
    return longest - length <= max(SLACK_TOKENS, SLACK_SHARE * longest)


def _oldest(lengths: Sequence[int], budget: Budget) -> list[int]:
    """Return item 0 and those after it that fit, in order of arrival: packing wastes nothing."""
    chosen, total = [0], lengths[0]
    for i in range(1, len(lengths)):
        if len(chosen) >= budget.items or total >= budget.tokens:
            break
        if total + lengths[i] <= budget.tokens:
            chosen.append(i)
            total += lengths[i]
    return chosen


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

from __future__ import annotations

import pytest

from ondol.core.clock import ManualClock
from ondol.runtime.encoders.batching import (
    LOOK_SECONDS,
    MOST_HALVINGS,
    RECOVERY_SECONDS,
    AdaptiveBudget,
    Budget,
    MemoryLimits,
)

MB = 1024 * 1024


class Memory:
    """Free memory as told; counts how often it was asked."""

    def __init__(self, free_mb: int | None) -> None:
        self.free_mb = free_mb
        self.asked = 0

    def __call__(self) -> int | None:
        self.asked += 1
        return None if self.free_mb is None else self.free_mb * MB


def adaptive(memory: Memory, clock: ManualClock) -> AdaptiveBudget:
    full = Budget(tokens=2048, items=64, padded=False, buckets=(8,))
    return AdaptiveBudget(full, limits=MemoryLimits(), free_bytes=memory, clock=clock)


@pytest.mark.parametrize(
    ("free_mb", "tokens"),
    [(None, 2048), (8000, 2048), (2048, 2048), (2047, 1024), (1024, 1024), (1023, 512), (0, 512)],
)
def test_a_quarter_under_the_low_mark_half_under_the_tight_one(
    free_mb: int | None, tokens: int
) -> None:
    budget = adaptive(Memory(free_mb), ManualClock())
    assert budget.look() == (tokens != 2048)
    assert budget.current == Budget(tokens=tokens, items=64, padded=False, buckets=(8,))
    assert budget.reason == ("whole" if tokens == 2048 else "little_memory")


def test_marks_of_zero_turn_it_off() -> None:
    assert MemoryLimits(low_mb=0, tight_mb=0).share(0) == 1.0


def test_it_looks_seldom_and_follows_the_memory_both_ways() -> None:
    memory, clock = Memory(500), ManualClock()
    budget = adaptive(memory, clock)
    assert budget.look()
    memory.free_mb = 8000
    assert not budget.look()
    clock.advance(LOOK_SECONDS / 2)
    assert not budget.look()
    assert memory.asked == 1
    clock.advance(LOOK_SECONDS)
    assert budget.look()
    assert (budget.current.tokens, memory.asked) == (2048, 2)


def test_running_out_halves_for_a_while() -> None:
    clock = ManualClock()
    budget = adaptive(Memory(None), clock)
    assert budget.ran_out()
    assert budget.ran_out()
    assert (budget.current.tokens, budget.reason) == (512, "out_of_memory")
    seen = []
    for _ in range(3):
        clock.advance(RECOVERY_SECONDS)
        budget.look()
        seen.append(budget.current.tokens)
    assert seen == [1024, 2048, 2048]
    assert budget.reason == "whole"


def test_it_never_falls_to_nothing() -> None:
    budget = adaptive(Memory(0), ManualClock())
    budget.look()
    for _ in range(50):
        budget.ran_out()
    assert budget.current.tokens == 512 // 2**MOST_HALVINGS

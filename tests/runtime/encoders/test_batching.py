from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ondol.runtime.encoders.batching import (
    SLACK_SHARE,
    SLACK_TOKENS,
    WINDOW,
    Aging,
    Budget,
    batch_cost,
    next_batch,
)


@dataclass(frozen=True)
class Item:
    tokens: int
    urgent: bool = True
    arrived: float = 0.0


items = st.lists(st.builds(Item, st.integers(1, 600), st.booleans()), max_size=60)
rising = st.lists(st.integers(1, 512), max_size=6).map(lambda found: tuple(sorted(set(found))))
budgets = st.builds(Budget, st.integers(16, 4096), st.integers(1, 64), st.booleans(), rising)


@given(items, budgets)
def test_a_batch_respects_the_budget_and_runs_somebody(queue: list[Item], budget: Budget) -> None:
    chosen = next_batch(queue, budget)
    assert bool(chosen) == bool(queue)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= budget.items
    if len(chosen) > 1:
        assert batch_cost([queue[i].tokens for i in chosen], budget) <= budget.tokens


@given(items, budgets)
def test_the_oldest_of_the_most_urgent_class_always_runs(queue: list[Item], budget: Budget) -> None:
    chosen = next_batch(queue, budget)
    if not queue:
        return
    urgent = any(item.urgent for item in queue)
    anchor = next(i for i, item in enumerate(queue) if item.urgent == urgent)
    assert anchor in chosen
    assert {queue[i].urgent for i in chosen} == {urgent}


@given(items, budgets)
def test_draining_the_queue_runs_every_item_exactly_once(queue: list[Item], budget: Budget) -> None:
    waiting = list(enumerate(queue))
    ran: list[int] = []
    while waiting:
        chosen = next_batch([item for _, item in waiting], budget)
        ran += [waiting[i][0] for i in chosen]
        waiting = [pair for i, pair in enumerate(waiting) if i not in chosen]
    assert sorted(ran) == list(range(len(queue)))


@given(items, budgets)
def test_padding_inside_a_batch_is_bounded(queue: list[Item], budget: Budget) -> None:
    if not budget.padded:
        return
    lengths = [budget.length(queue[i].tokens) for i in next_batch(queue, budget)]
    longest = max(lengths, default=0)
    assert all(longest - n <= max(SLACK_TOKENS, SLACK_SHARE * longest) for n in lengths)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60), budgets)
def test_a_drained_queue_is_cut_as_one_sorted_list(lengths: list[int], budget: Budget) -> None:
    """Whoever anchors a batch, the rest is cut as before: no leftovers of odd lengths."""
    if not budget.padded:
        return
    waiting, batches = [Item(n) for n in lengths], []
    while waiting:
        chosen = next_batch(waiting, budget)
        batches.append([waiting[i].tokens for i in chosen])
        waiting = [item for i, item in enumerate(waiting) if i not in chosen]
    spans = sorted((budget.length(min(b)), budget.length(max(b))) for b in batches)
    assert all(low[1] <= high[0] for low, high in pairwise(spans))


@given(items, budgets, st.integers(0, 20), st.builds(Aging, st.floats(0.1, 60), st.integers(1, 9)))
def test_bulk_runs_before_urgent_only_when_it_is_old_and_its_turn(
    queue: list[Item], budget: Budget, streak: int, aging: Aging
) -> None:
    chosen = next_batch(queue, budget, now=30.0, urgent_streak=streak, aging=aging)
    if len({item.urgent for item in queue}) == 2:
        due = aging.seconds <= 30.0 and streak >= aging.every - 1
        assert queue[chosen[0]].urgent is not due


def test_bulk_work_gets_its_share_under_endless_urgent_work() -> None:
    aging = Aging(seconds=5, every=4)
    queue = [Item(9, urgent=False, arrived=0.0), *(Item(9, arrived=9.0) for _ in range(3))]
    ran, streak = [], 0
    for now in range(20):
        (first, *_) = next_batch(
            queue, Budget(9, 1), now=float(now), urgent_streak=streak, aging=aging
        )
        ran.append("urgent" if queue[first].urgent else "bulk")
        streak = streak + 1 if queue[first].urgent else 0
    assert ran.index("bulk") == 5
    assert ran[5:].count("bulk") == 4


def test_batches_are_homogeneous_in_length() -> None:
    queue = [Item(10), Item(500), Item(12), Item(480), Item(11)]
    assert next_batch(queue, Budget(tokens=64, items=8)) == [0, 2, 4]


def test_a_long_item_does_not_pad_short_ones_however_large_the_budget() -> None:
    queue = [Item(500), Item(12), Item(470), Item(11)]
    assert next_batch(queue, Budget(tokens=100_000, items=64)) == [0, 2]


def test_an_oversized_item_runs_alone() -> None:
    assert next_batch([Item(5000), Item(5)], Budget(tokens=100, items=8)) == [0]
    assert next_batch([Item(5000), Item(5)], Budget(tokens=100, items=8, padded=False)) == [0]


def test_a_packed_batch_costs_its_sum_and_keeps_the_order_of_arrival() -> None:
    queue = [Item(10), Item(500), Item(12), Item(480), Item(11)]
    budget = Budget(tokens=600, items=8, padded=False)
    assert next_batch(queue, budget) == [0, 1, 2, 4]
    assert batch_cost([10, 500, 12, 11], budget) == 533


def test_lengths_count_as_their_bucket() -> None:
    budget = Budget(tokens=256, items=8, buckets=(32, 64, 128))
    assert [budget.length(n) for n in (1, 32, 33, 128, 129)] == [32, 32, 64, 128, 129]
    queue = [Item(33), Item(64), Item(60), Item(40), Item(50), Item(31)]
    assert next_batch(queue, budget) == [0, 1, 2, 3]
    assert batch_cost([33, 64, 60, 40], budget) == 256


def test_a_choice_looks_at_a_bounded_part_of_the_queue() -> None:
    queue = [Item(10), *(Item(100) for _ in range(WINDOW)), *(Item(10) for _ in range(9))]
    assert next_batch(queue, Budget(tokens=4096, items=64)) == [0]

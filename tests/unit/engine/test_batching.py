from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ondol.engine.batching import Budget, next_batch


@dataclass(frozen=True)
class Item:
    tokens: int
    urgent: bool = True


items = st.lists(st.builds(Item, st.integers(1, 600), st.booleans()), max_size=60)
budgets = st.builds(Budget, st.integers(16, 4096), st.integers(1, 64))


@given(items, budgets)
def test_a_batch_respects_the_budget_and_runs_somebody(queue: list[Item], budget: Budget) -> None:
    chosen = next_batch(queue, budget)
    assert bool(chosen) == bool(queue)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= budget.items
    if len(chosen) > 1:
        assert max(queue[i].tokens for i in chosen) * len(chosen) <= budget.tokens


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


def test_batches_are_homogeneous_in_length() -> None:
    queue = [Item(10), Item(500), Item(12), Item(480), Item(11)]
    assert next_batch(queue, Budget(tokens=64, items=8)) == [0, 2, 4]


def test_an_oversized_item_runs_alone() -> None:
    assert next_batch([Item(5000), Item(5)], Budget(tokens=100, items=8)) == [0]

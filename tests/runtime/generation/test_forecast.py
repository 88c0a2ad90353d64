"""List scheduling of slots and prefills."""

from __future__ import annotations

import pytest

from ondol.runtime.generation.policy import SlotOccupancy, WorkEstimate, starts


def foreseen(
    needs: list[WorkEstimate], running: list[SlotOccupancy], *, slots: int = 2, prefills: int = 1
) -> list[float]:
    return starts(needs, running, now=10.0, slots=slots, prefills=prefills)


def test_prefills_follow_each_other_while_slots_are_free() -> None:
    assert foreseen([WorkEstimate(1, 5), WorkEstimate(2, 5)], []) == [10.0, 11.0]


def test_the_third_of_two_slots_waits_for_the_first_to_end() -> None:
    assert foreseen([WorkEstimate(1, 5), WorkEstimate(2, 5), WorkEstimate(1, 1)], []) == [
        10.0,
        11.0,
        16.0,
    ]


def test_what_runs_holds_its_slot_and_the_prefill() -> None:
    running = [SlotOccupancy(first_token=12.0, end=15.0), SlotOccupancy(first_token=5.0, end=13.0)]
    assert foreseen([WorkEstimate(1, 1), WorkEstimate(1, 1)], running) == [13.0, 15.0]


def test_an_end_that_is_overdue_is_now() -> None:
    assert foreseen([WorkEstimate(1, 1)], [SlotOccupancy(1.0, 2.0), SlotOccupancy(1.0, 9.0)]) == [
        10.0
    ]


def test_more_prefills_at_once_where_the_backend_reads_them_so() -> None:
    assert foreseen([WorkEstimate(3, 1), WorkEstimate(3, 1)], [], prefills=2) == [10.0, 10.0]


def test_fewer_slots_than_run_after_they_were_lowered() -> None:
    running = [SlotOccupancy(1.0, 12.0), SlotOccupancy(1.0, 14.0), SlotOccupancy(1.0, 20.0)]
    assert foreseen([WorkEstimate(1, 1)], running, slots=1) == [20.0]


@pytest.mark.parametrize("slots", [1, 3])
def test_nothing_waits_for_nothing(slots: int) -> None:
    assert foreseen([WorkEstimate(0, 0)] * 5, [], slots=slots) == [10.0] * 5

"""How many hits are enough is chosen on one half and used only where the other loses nothing."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.core.types import Hit
from ondol.lab.evaluate.datasets import Query
from ondol.lab.evaluate.fusion_calibration import TRIED, WITHIN, HitLog, choose_depth, tried

TEXT = "가나다라마바사아자차" * 10


def log(places: Sequence[int], *, hits: int = 20) -> HitLog:
    """Return the hits of questions whose one document stands at these places; 0 is nowhere."""
    found = HitLog()
    for number, place in enumerate(places):
        documents = ["right" if at == place else "wrong" for at in range(1, hits + 1)]
        found.add(Query(str(number), "q", {"right": 1.0}), documents, [_hit()] * hits)
    return found


def _hit() -> Hit:
    return Hit(document="d", chunk=1, page=None, start=0, end=100, score=1.0, text=TEXT)


def test_the_smallest_that_loses_nothing_is_chosen() -> None:
    chosen = choose_depth(log([1, 2, 5]), log([1, 4, 5]), log([1, 4, 5]), 10)
    assert (chosen.k, chosen.adopted) == (5, True)
    assert [one.k for one in chosen.curve] == [3, 5, 10, 15, 20]
    assert [round(one.recall, 2) for one in chosen.curve] == [0.67, 1, 1, 1, 1]
    assert chosen.wanted.tokens * 2 == chosen.now.tokens == chosen.before.tokens
    assert chosen.as_json()["k"] == 5


def test_a_loss_on_the_other_half_is_not_hidden() -> None:
    lost = choose_depth(log([1, 2, 3]), log([1, 2, 9]), log([1, 2, 9]), 10)
    assert (lost.k, lost.adopted, lost.wanted.k) == (10, False, 3)
    worse = choose_depth(log([1, 2, 3]), log([1, 2, 0]), log([1, 2, 3]), 10)
    assert not worse.adopted, "what the better settings lost, a smaller k must not seal"


def test_more_is_read_only_where_it_finds_more() -> None:
    assert choose_depth(log([1, 12]), log([1, 12]), log([1, 12]), 10).k == 15
    assert choose_depth(log([1, 12]), log([1, 2]), log([1, 2]), 10).k == 10
    assert not choose_depth(log([1], hits=2), log([1], hits=2), log([1], hits=2), 10).adopted
    assert tried(7) == (3, 5, 7, 10, 15, 20)
    assert choose_depth(log([2], hits=30), log([29], hits=30), log([29], hits=30), 30).k == 30


places = st.lists(st.integers(0, 20), min_size=1, max_size=12)


@settings(max_examples=60)
@given(choosing=places, deciding=places, before=places, current=st.integers(1, 20))
def test_what_is_used_never_loses_more_than_it_may(
    choosing: list[int], deciding: list[int], before: list[int], current: int
) -> None:
    chosen = choose_depth(log(choosing), log(deciding), log(before), current)
    used = log(deciding).at(chosen.k)
    assert chosen.k in {*TRIED, current}
    assert used.recall >= log(deciding).at(current).recall - WITHIN
    if chosen.k < current:
        assert used.recall >= log(before).at(current).recall - WITHIN

from __future__ import annotations

from ondol.runtime.embedding_cache.embedding_cache import PROBE_EVERY, LookupWorth


def after(*, hits: int, texts: int, lookup: float, compute: float) -> LookupWorth:
    worth = LookupWorth()
    for n in range(texts):
        worth.asked(1, hits=int(n < hits), seconds=lookup)
        worth.computed(1, seconds=compute)
    return worth


def test_it_is_asked_until_costs_are_known() -> None:
    worth = LookupWorth()
    assert worth.asks()
    worth.asked(1, hits=0, seconds=9.0)
    assert worth.asks()


def test_a_look_up_that_costs_next_to_nothing_is_always_made() -> None:
    worth = after(hits=0, texts=500, lookup=0.00001, compute=0.001)
    assert all(worth.asks() for _ in range(100))


def test_a_look_up_that_finds_nothing_is_made_now_and_then() -> None:
    worth = after(hits=0, texts=500, lookup=0.0002, compute=0.003)
    asked = [worth.asks() for _ in range(10 * PROBE_EVERY)]
    assert sum(asked) == 10


def test_it_is_asked_again_once_it_finds_something() -> None:
    worth = after(hits=0, texts=500, lookup=0.0002, compute=0.003)
    assert not worth.asks()
    worth.asked(8, hits=8, seconds=0.0016)
    assert all(worth.asks() for _ in range(100))


def test_slow_and_seldom_right_is_not_asked() -> None:
    worth = after(hits=0, texts=500, lookup=0.0002, compute=0.003)
    for n in range(300):
        worth.asked(1, hits=int(n % 10 == 0), seconds=0.01)
    assert sum(worth.asks() for _ in range(PROBE_EVERY)) == 1

"""Windows around hits: bounded, exact, never twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ondol.core.types import Hit, Page
from ondol.search.parents import collapsed, window
from ondol.store.passages import Neighbour


def row(count: int, size: int = 100, overlap: int = 0) -> list[Neighbour]:
    """Neighbours of ``size`` characters, each repeating ``overlap`` of the one before."""
    step = size - overlap
    return [Neighbour(n * step, n * step + size, n // 4 + 1) for n in range(count)]


def hit(near: list[Neighbour], at: int) -> Hit:
    one = near[at]
    return Hit("d", at, one.page, one.start, one.end, 1.0, "x" * (one.end - one.start))


def test_a_window_grows_by_turns_what_follows_first() -> None:
    near = row(9)
    assert [n.start for n in window(near[4], near, chars=250)] == [400, 500]
    assert [n.start for n in window(near[4], near, chars=300)] == [300, 400, 500]
    assert [n.start for n in window(near[0], near, chars=300)] == [0, 100, 200]
    assert [n.start for n in window(near[8], near, chars=300)] == [600, 700, 800]


def test_a_hit_that_is_longer_than_a_window_or_has_no_parent_stays() -> None:
    near = row(3)
    assert window(near[1], near, chars=50) == [near[1]]
    assert window(near[1], [], chars=500) == [near[1]]


def test_hits_within_one_window_collapse_into_the_best() -> None:
    near = row(9)
    hits = [hit(near, 4), hit(near, 5), hit(near, 8), hit(near, 3)]
    kept = collapsed(hits, dict.fromkeys(range(9), near), chars=300)
    assert [one.chunk for one, _ in kept] == [4, 8]
    assert [[n.start for n in run] for _, run in kept] == [[300, 400, 500], [600, 700, 800]]


@given(
    st.integers(1, 30),
    st.integers(0, 40),
    st.lists(st.integers(0, 29), min_size=1, max_size=12, unique=True),
    st.integers(1, 900),
)
def test_windows_hold_their_hit_are_bounded_and_overlap_no_more_than_chunks_do(
    count: int, overlap: int, places: list[int], chars: int
) -> None:
    near = row(count, overlap=overlap)
    hits = [hit(near, at) for at in places if at < count]
    kept = collapsed(hits, dict.fromkeys(range(count), near), chars=chars)
    spans = [(run[0].start, run[-1].end) for _, run in kept]
    for (one, run), (start, end) in zip(kept, spans, strict=True):
        assert start <= one.start < one.end <= end
        assert end - start <= max(chars, 100)
        assert run == near[near.index(run[0]) : near.index(run[-1]) + 1]
    for one in hits:  # whatever was found is still read
        assert any(start <= one.start and one.end <= end for start, end in spans)
    ordered = sorted(spans)
    for (_, end), (start, _) in pairwise(ordered):
        assert end - start <= overlap


def test_a_citation_in_a_window_has_the_page_it_stands_on() -> None:
    pages = (Page(1, 0, 100), Page(1, 90, 200), Page(2, 190, 300))
    wide = Hit("d", 1, 1, 0, 300, 1.0, "x" * 300, pages=pages)
    assert [wide.page_at(offset) for offset in (0, 150, 195, 299)] == [1, 1, 2, 2]
    assert Hit("d", 1, 7, 0, 3, 1.0, "xyz").page_at(2) == 7

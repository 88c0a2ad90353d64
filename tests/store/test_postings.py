"""Postings in memory against FTS5, which they must equal whatever happened to the database."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.builders import DIMENSIONS, filled, open_store, put

from ondol.store.collection_words import KeywordStore
from ondol.store.documents import DocumentStore
from ondol.store.postings import BLOCK_CHUNKS, Postings

WORDS = [f"낱말{n}" for n in range(12)]
TOKENS = st.lists(st.sampled_from(WORDS), max_size=8)
CHUNKS = st.lists(TOKENS, min_size=1, max_size=30)


def zipf(seed: int, count: int) -> list[str]:
    drawn = np.random.default_rng(seed).zipf(1.3, count)
    return [f"낱말{n}" for n in drawn if n < 300]


def many(store: DocumentStore, numbers: range) -> None:
    for number in numbers:
        put(store, f"/{number}", "가나다", tokens=zipf(number, 30), metadata={"n": number % 3})


def answers(store: DocumentStore) -> list[list[tuple[int, float]]]:
    return [
        store.search_lexical("c", zipf(q, 6), expansions=zipf(-q % 97, 2), limit=15, filter=wanted)
        for q in range(1000, 1020)
        for wanted in (None, {"n": 1}, {"n": 9})
    ]


def assert_same(
    found: list[list[tuple[int, float]]], wanted: list[list[tuple[int, float]]]
) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert [score for _, score in one] == pytest.approx([score for _, score in other])
        distinct = {round(score, 9) for _, score in one}
        if len(distinct) == len(one):
            assert [chunk for chunk, _ in one] == [chunk for chunk, _ in other]


def test_both_ways_find_the_same_through_adding_replacing_and_deleting(tmp_path: Path) -> None:
    with filled(tmp_path) as store, open_store(tmp_path) as plain:
        many(store, range(60))
        store.refresh_keywords("c")
        assert store.lexical_state("c").chunks == 60
        assert_same(answers(store), answers(plain))
        store.delete_sources("c", [f"/{number}" for number in range(0, 60, 4)])
        many(store, range(50, 70))  # some are replaced
        assert_same(answers(store), answers(plain))
        state = store.lexical_state("c")
        assert state.chunks == store.collection("c").chunks
        assert state.memory_bytes > 0
        assert plain.lexical_state("c").chunks == 0


def test_another_process_writes(tmp_path: Path) -> None:
    with filled(tmp_path) as store, open_store(tmp_path) as other:
        many(store, range(5))
        store.refresh_keywords("c")
        put(other, "/new", "가", tokens=["새말"])
        assert len(store.search_lexical("c", ["새말"], limit=3)) == 1
        other.delete_sources("c", ["/new"])
        assert store.search_lexical("c", ["새말"], limit=3) == []
        assert store.lexical_state("c").chunks == 5


def test_rewritten_keywords_are_found_at_once_in_every_process(tmp_path: Path) -> None:
    with filled(tmp_path) as store, open_store(tmp_path) as other:
        many(store, range(5))
        store.refresh_keywords("c")
        (chunk, _), *_ = store.search_lexical("c", zipf(1, 30), limit=1)
        assert (
            KeywordStore(other.database).rewrite("c", [(chunk, ["바뀐말"]), (999, ["없는말"])]) == 1
        )
        assert store.search_lexical("c", ["바뀐말"], limit=3)[0][0] == chunk
        store.refresh_keywords("c")
        assert store.search_lexical("c", ["바뀐말"], limit=3)[0][0] == chunk
        assert store.search_lexical("c", ["없는말"], limit=3) == []
        assert store.check(deep=True).ok
        vectors = store.search_vectors("c", np.eye(1, DIMENSIONS, dtype=np.float32)[0], limit=99)
        assert len(vectors) == 5


def test_what_a_collection_knows_is_kept(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        assert KeywordStore(store.database).get("c") == {}
        KeywordStore(store.database).set("c", {"dictionary": ["온돌이음"]})
    with open_store(tmp_path) as store:
        assert KeywordStore(store.database).get("c") == store.collection("c").keywords
        assert KeywordStore(store.database).get("c") == {"dictionary": ["온돌이음"]}


def test_a_deleted_collection_leaves_no_postings(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        many(store, range(3))
        store.refresh_keywords("c")
        store.delete_collection("c")
        store.create_collection("c", embedder="e5", dimensions=DIMENSIONS)
        assert store.lexical_state("c").chunks == 0
        assert store.search_lexical("c", WORDS, limit=3) == []


@settings(max_examples=60, deadline=None)
@given(CHUNKS, CHUNKS, st.sets(st.integers(1, 60)), TOKENS)
def test_postings_in_parts_are_postings_at_once(
    first: list[list[str]], later: list[list[str]], gone: set[int], query: list[str]
) -> None:
    rows = list(enumerate([*first, *later], start=1))
    parts = Postings().added(rows[: len(first)])
    for row in rows[len(first) :]:
        parts = parts.added([row])
    kept = [row for row in rows if row[0] not in gone]
    parts = parts.keeping(np.array([chunk for chunk, _ in kept], np.int64))
    whole = Postings().added(kept)
    assert (parts.chunks, parts.length) == (whole.chunks, whole.length)
    terms = list(dict.fromkeys(query))
    assert parts.frequencies(terms) == whole.frequencies(terms)
    ones = [1.0] * len(terms)
    found = parts.best(terms, ones, limit=9)
    wanted = whole.best(terms, ones, limit=9)
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted])


def test_blocks_are_bounded_and_a_term_may_stand_anywhere() -> None:
    count = BLOCK_CHUNKS + 10
    found = Postings().added((number, ["흔한"]) for number in range(1, count + 1))
    assert len(found.blocks) == 2
    assert found.frequencies(["흔한", "없는"]) == [count, 0]
    assert len(found.best(["흔한"], [1.0], limit=count + 5)) == count
    assert found.best(["흔한"], [1.0], limit=0) == []
    assert Postings().best(["흔한"], [1.0], limit=3) == []

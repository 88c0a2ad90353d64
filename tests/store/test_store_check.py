"""Damage done on purpose, with SQL behind the store's back: found by check, mended by repair."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tests.store.builders import filled, open_store, put, stored_vectors

from ondol.store.records import StoreReport

DAMAGE: dict[str, tuple[str, ...]] = {
    "document without collection": ("UPDATE documents SET collection_id = 77 WHERE name = 'a'",),
    "text without document": ("INSERT INTO texts VALUES (77, 0, 'x')",),
    "chunk without document": ("UPDATE chunks SET document_id = 77 WHERE id = 1",),
    "document without text": ("DELETE FROM texts WHERE document_id = 1",),
    "chunk outside its text": ("UPDATE chunks SET stop = 10000 WHERE id = 1",),
    "parent outside its text": (
        "UPDATE chunks SET parent_start = start + 1, parent_stop = stop WHERE id = 1",
    ),
    "vector of the wrong length": ("UPDATE chunks SET vector = x'00' WHERE id = 1",),
    "lexical index without collection": ("CREATE VIRTUAL TABLE lexical_77 USING fts5(body)",),
    "collection without lexical index": ("DROP TABLE vocabulary_1", "DROP TABLE lexical_1"),
    "chunk without tokens": ("DELETE FROM lexical_1 WHERE rowid = 1",),
    "tokens without chunk": ("INSERT INTO lexical_1(rowid, body) VALUES (77, 'x')",),
}


def damaged(home: Path, *statements: str) -> None:
    with filled(home) as store:
        put(store, "/a", "하나 둘 셋 넷 다섯", tokens=["말"])
        put(store, "/b", tokens=["말"])
    connection = sqlite3.connect(home / "ondol.db", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_damage_is_found_and_mended(tmp_path: Path, kind: str) -> None:
    damaged(tmp_path, *DAMAGE[kind])
    with open_store(tmp_path) as store:
        found = store.check()
        assert kind in {problem.kind for problem in found.problems}
        assert not found.ok
        assert kind in str(found)
        mended = store.repair()
        assert mended.problems == ()
        assert mended.stale_files == ()
        assert store.check(deep=True).problems == ()
        for source in mended.incomplete:
            assert store.digests("c")[source] == ""
            assert source in str(mended)
        for source in ("/a", "/b"):  # the next ingest puts everything right
            put(store, source, tokens=["말"])
        assert store.check(deep=True).ok
        words = {chunk for chunk, _ in store.search_lexical("c", ["말"], limit=99)}
        assert words == set(stored_vectors(store))
        assert words


def test_a_cut_text_is_found_by_the_deep_check(tmp_path: Path) -> None:
    damaged(tmp_path, "UPDATE texts SET text = substr(text, 1, 5) WHERE document_id = 1")
    with open_store(tmp_path) as store:
        assert [p.kind for p in store.check(deep=True).problems] == ["text that is cut"]
        assert store.repair().incomplete == ("/a",)


def test_a_matrix_that_strayed_is_found_and_mended(tmp_path: Path) -> None:
    damaged(tmp_path)
    with open_store(tmp_path) as store:
        truth = stored_vectors(store)
        connection = sqlite3.connect(tmp_path / "ondol.db")
        connection.execute("UPDATE chunks SET vector = zeroblob(length(vector)) WHERE id = 1")
        connection.commit()
        connection.close()
        kinds = {problem.kind for problem in store.check(deep=True).problems}
        assert kinds == {"matrix disagrees with the database"}
        assert store.repair().ok
        assert stored_vectors(store) == truth | {1: 0.0}


def test_a_damaged_lexical_index_is_found_by_the_deep_check(tmp_path: Path) -> None:
    damaged(tmp_path, "UPDATE lexical_1_content SET c0 = 'other' WHERE id = 1")
    with open_store(tmp_path) as store:
        assert store.check().ok
        kinds = {problem.kind for problem in store.check(deep=True).problems}
        assert kinds == {"lexical index disagrees with its contents"}


def test_a_store_in_order_is_left_as_it_is(tmp_path: Path) -> None:
    damaged(tmp_path)
    with open_store(tmp_path) as store:
        before = stored_vectors(store)
        report = store.repair()
        assert report == StoreReport(1, 2, 4, (), (), ())
        assert stored_vectors(store) == before
        assert store.digests("c") == {"/a": "d1", "/b": "d1"}

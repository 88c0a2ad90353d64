from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.store.builders import (
    DIMENSIONS,
    cut,
    document,
    filled,
    open_store,
    put,
    stored_vectors,
    units,
)

from ondol.core.errors import Conflict, InvalidInput, NotFound
from ondol.core.events import DocumentIngested, Event
from ondol.core.types import Page, ReadDocument
from ondol.store.documents import DocumentStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    with filled(tmp_path) as store:
        yield store


def test_a_document_comes_back_as_it_was_put(store: DocumentStore) -> None:
    text = "제1조(목적) 😀 이 규칙은 근로조건을 정한다.\n𝒜stral text too."
    given = ReadDocument(
        "/in/취업규칙.pdf",
        "취업규칙",
        text,
        pages=(Page(1, 0, 10), Page(2, 10, len(text))),
        metadata={"law": "민법", "nested": {"a": [1, None, True]}},
        media_type="application/pdf",
    )
    chunks = cut(text, 7)
    outcome = store.put_document(
        "c", given, digest="d", chunks=chunks, vectors=units(len(chunks)), container="/in"
    )
    assert outcome == "added"
    kept = store.document("c", "취업규칙.pdf")
    assert (kept.source, kept.title, kept.text) == (given.source, given.title, given.text)
    assert tuple(kept.pages) == given.pages
    assert kept.metadata == given.metadata
    assert (kept.media_type, kept.digest, kept.container) == ("application/pdf", "d", "/in")
    assert (kept.chunks, kept.characters) == (len(chunks), len(text))
    assert kept.ingested == 1_700_000_000.0


def test_chunks_are_exactly_their_range_of_the_text(store: DocumentStore) -> None:
    text = "가😀나𝒜다" * 9000 + "끝"  # longer than one stored block, astral characters throughout
    chunks = cut(text, 997)
    store.put_document(
        "c", document("/t", text), digest="d", chunks=chunks, vectors=units(len(chunks))
    )
    rows = store.chunks("c", list(stored_vectors(store)))
    assert len(rows) == len(chunks)
    assert sorted((row.start, row.end, row.text) for row in rows) == [
        (c.passage.start, c.passage.end, c.passage.text) for c in chunks
    ]
    assert all(row.text == text[row.start : row.end] for row in rows)
    assert {(row.document, row.page, row.heading, row.title) for row in rows} == {
        ("t", 1, "절", "제목 /t")
    }


def test_chunks_come_in_the_order_asked_without_those_that_are_gone(store: DocumentStore) -> None:
    put(store, "/a", "하나 둘 셋 넷 다섯 여섯")
    ids = sorted(stored_vectors(store), reverse=True)
    assert [row.chunk for row in store.chunks("c", [*ids, 9999])] == ids
    store.delete_document("c", "a")
    assert store.chunks("c", ids) == []


def test_the_same_source_again_replaces_its_chunks_and_keeps_its_name(store: DocumentStore) -> None:
    put(store, "/a.txt", "첫째 판이다. 길다. 아주 길다.", tokens=["첫째"])
    before = set(stored_vectors(store))
    assert put(store, "/a.txt", "둘째 판이다.", digest="d2", tokens=["둘째"]) == "updated"
    assert store.digests("c") == {"/a.txt": "d2"}
    assert store.names("c") == {"/a.txt": "a.txt"}
    after = set(stored_vectors(store))
    assert after
    assert not after & before
    assert store.search_lexical("c", ["첫째"], limit=9) == []
    assert {chunk for chunk, _ in store.search_lexical("c", ["둘째"], limit=9)} == after
    assert store.check(deep=True).ok


def test_names_are_unique_and_stable(store: DocumentStore) -> None:
    for source in ("/x/a.txt", "/y/a.txt", "/z/laws.jsonl#민법_1", "/y/a.txt"):
        put(store, source)
    names = store.names("c")
    assert names["/x/a.txt"] == "a.txt"
    assert names["/z/laws.jsonl#민법_1"] == "민법_1"
    assert names["/y/a.txt"].startswith("a.txt~")
    assert store.document("c", names["/y/a.txt"]).source == "/y/a.txt"
    assert len(store.documents("c")) == 3


def test_digests_are_found_by_source_and_by_container(store: DocumentStore) -> None:
    put(store, "/f.jsonl#1", digest="1", container="/f.jsonl")
    put(store, "/f.jsonl#2", digest="2", container="/f.jsonl")
    put(store, "/g.txt", digest="3")
    assert store.digests("c", container="/f.jsonl") == {"/f.jsonl#1": "1", "/f.jsonl#2": "2"}
    assert store.digests("c", sources=["/g.txt", "/none"]) == {"/g.txt": "3"}
    assert store.digests("c", sources=[]) == {}


def test_documents_are_listed_by_name_page_by_page(store: DocumentStore) -> None:
    for number in range(7):
        put(store, f"/{number}.txt", container="/")
    first = store.documents("c", limit=4)
    rest = store.documents("c", limit=4, after=first[-1].document)
    assert [d.document for d in (*first, *rest)] == [f"{n}.txt" for n in range(7)]
    assert all(d.text == "" and d.pages == () and d.chunks > 0 for d in first)


def test_delete_takes_everything_with_it(tmp_path: Path) -> None:
    heard: list[Event] = []

    class Ear:
        def observe(self, event: Event) -> None:
            heard.append(event)

    with filled(tmp_path, observer=Ear()) as store:
        put(store, "/a.txt", "하나 둘 셋 넷 다섯", tokens=["공통"])
        put(store, "/b.txt", tokens=["공통"])
        put(store, "/c.txt", tokens=["공통"])
        assert store.delete_document("c", "a.txt") == 2
        assert store.delete_sources("c", ["/b.txt", "/none"]) == 1
        assert len(stored_vectors(store)) == len(store.search_lexical("c", ["공통"], limit=99)) == 2
        assert [e.source for e in heard if isinstance(e, DocumentIngested)] == ["/a.txt", "/b.txt"]
        store.delete_document("c", "c.txt")
        report = store.check(deep=True)
        assert (report.documents, report.chunks, report.ok) == (0, 0, True)


def test_delete_collection_takes_its_file_and_tables(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        put(store, "/a.txt")
    assert list((tmp_path / "vectors").iterdir())
    with open_store(tmp_path) as store:
        store.delete_collection("c")
        assert store.collections() == []
        assert not list((tmp_path / "vectors").iterdir())
        assert store.check(deep=True).ok
        store.create_collection("c", embedder="e5", dimensions=DIMENSIONS)
        assert stored_vectors(store) == {}


def test_deleted_text_does_not_stay_in_the_file(tmp_path: Path) -> None:
    secret = "주민번호비밀" * 50
    with filled(tmp_path) as store:
        put(store, "/a.txt", secret)
        store.delete_collection("c")
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "주민번호비밀".encode() not in kept


def test_collections_are_described_with_counts(store: DocumentStore) -> None:
    made = store.create_collection("법령", embedder="e5", dimensions=4, metadata={"lang": "ko"})
    assert (made.name, made.embedder, made.dimensions) == ("법령", "e5", 4)
    assert (made.metadata, made.documents, made.chunks) == ({"lang": "ko"}, 0, 0)
    put(store, "/a", "하나 둘 셋 넷 다섯")
    assert (store.collection("c").documents, store.collection("c").chunks) == (1, 2)
    assert [c.name for c in store.collections()] == ["c", "법령"]
    assert store.create_collection("법령", embedder="e5", dimensions=4, exist_ok=True) == made


def test_a_collection_keeps_one_embedder(store: DocumentStore) -> None:
    with pytest.raises(Conflict) as error:
        store.create_collection("c", embedder="other", dimensions=DIMENSIONS, exist_ok=True)
    assert "e5" in error.value.message
    assert "new collection" in error.value.hint
    with pytest.raises(Conflict):
        store.create_collection("c", embedder="e5", dimensions=DIMENSIONS + 1, exist_ok=True)
    with pytest.raises(Conflict):
        store.create_collection("c", embedder="e5", dimensions=DIMENSIONS)


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".hidden", "a b", "x" * 65, "a\x00", "-x", "a'b"]
)
def test_collection_names_that_are_refused(store: DocumentStore, name: str) -> None:
    with pytest.raises(InvalidInput) as error:
        store.create_collection(name, embedder="e5", dimensions=4)
    assert error.value.param == "collection"


def test_a_decomposed_name_is_the_composed_one(store: DocumentStore) -> None:
    store.create_collection("\u1112\u1161\u11ab", embedder="e5", dimensions=4)
    assert store.collection("한").name == "한"
    assert store.collection("\u1112\u1161\u11ab").name == "한"


@pytest.mark.parametrize("dimensions", [0, -1, 100_000])
def test_dimensions_that_are_refused(store: DocumentStore, dimensions: int) -> None:
    with pytest.raises(InvalidInput):
        store.create_collection("n", embedder="e5", dimensions=dimensions)


def test_what_does_not_exist_is_named_with_what_is_near(store: DocumentStore) -> None:
    put(store, "/rules.pdf")
    store.create_collection("statutes", embedder="e5", dimensions=4)
    with pytest.raises(NotFound, match="statute") as error:
        store.collection("statute")
    assert "statutes" in error.value.hint
    with pytest.raises(NotFound) as error:
        store.document("c", "rule.pdf")
    assert "rules.pdf" in error.value.hint
    for call in (
        lambda: put(store, "/a", collection="none"),
        lambda: store.search_lexical("none", ["a"], limit=1),
        lambda: store.search_vectors("none", units(1)[0], limit=1),
        lambda: store.delete_document("c", "none"),
        lambda: store.delete_collection("none"),
        lambda: store.digests("none"),
        lambda: store.chunks("none", [1]),
    ):
        with pytest.raises(NotFound):
            call()


TEXT = "본문이다. Body."


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"vectors": units(3)}, "vectors"),
        ({"vectors": units(2, dimensions=DIMENSIONS - 1)}, "vectors"),
        ({"vectors": units(2) * 2}, "vectors"),
        ({"vectors": units(2) * np.nan}, "vectors"),
        ({"vectors": np.zeros((2, DIMENSIONS), np.float32)}, "vectors"),
        ({"chunks": cut(TEXT + " 더")[1:] * 2}, "chunks"),
        ({"chunks": cut("다른 글이다. Text.")[:2]}, "chunks"),
        ({"document": document("/a", "a\x00b")}, "text"),
        ({"document": document("/a", "a\ud800b")}, "text"),
        ({"document": document("/a", TEXT, title="\ud800")}, "title"),
        ({"document": document("", TEXT)}, "source"),
        ({"document": document("/a", TEXT, metadata={"a": {1, 2}})}, "metadata"),
        ({"document": document("/a", TEXT, metadata={"a": float("nan")})}, "metadata"),
        ({"document": document("/a", TEXT, metadata={"a": "\ud800"})}, "metadata"),
        ({"digest": ""}, "digest"),
    ],
)
def test_what_does_not_fit_is_refused_whole(
    store: DocumentStore, change: dict[str, Any], param: str
) -> None:
    put(store, "/a", TEXT, digest="before")
    held = stored_vectors(store)
    given: dict[str, Any] = {
        "document": document("/a", TEXT),
        "digest": "after",
        "chunks": cut(TEXT),
        "vectors": units(2),
    }
    given |= change
    with pytest.raises(InvalidInput) as error:
        store.put_document("c", given.pop("document"), **given)
    assert error.value.param == param
    assert error.value.hint
    assert store.digests("c") == {"/a": "before"}
    assert stored_vectors(store) == held
    assert store.check(deep=True).ok


def test_a_document_without_chunks_is_kept(store: DocumentStore) -> None:
    empty = np.empty((0, DIMENSIONS), np.float32)
    store.put_document("c", document("/empty", ""), digest="d", chunks=[], vectors=empty)
    assert store.document("c", "empty").text == ""
    assert stored_vectors(store) == {}
    assert store.search_lexical("c", ["a"], limit=3) == []
    assert store.check(deep=True).ok


def test_everything_survives_reopening(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        put(store, "/a.txt", "하나 둘 셋 넷 다섯", tokens=["민법"])
        scores = stored_vectors(store)
        words = store.search_lexical("c", ["민법"], limit=9)
        kept = store.document("c", "a.txt")
    for _ in range(2):
        with open_store(tmp_path) as store:
            assert stored_vectors(store) == scores
            assert store.search_lexical("c", ["민법"], limit=9) == words
            assert store.document("c", "a.txt") == kept
            assert store.check(deep=True).ok
            assert store.check().stale_files == ()

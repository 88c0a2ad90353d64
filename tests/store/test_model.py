"""The store against a plain model: any sequence of operations, in one process or two."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.store.builders import DIMENSIONS, cosine, cut, open_store, units
from tests.store.test_lexical import bm25

from ondol.core.types import ReadDocument
from ondol.store.documents import DocumentStore

COLLECTIONS = ("a", "둘")
SOURCES = ("/1.txt", "/dir/1.txt", "/2.jsonl#x", "/3.md")
WORDS = ["하나", "둘", "three", "제4조", "😀", "2019다12345"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
QUERIES = st.lists(st.sampled_from([*WORDS, "없는"]), min_size=1, max_size=4)
PARTS = st.integers(0, 2)


class StoreMachine(RuleBasedStateMachine):
    """Two stores on one home stand for two processes; every operation takes either."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="ondol-model-"))
        self.stores = [open_store(self.home), open_store(self.home, resident_bytes=0)]
        self.model: dict[str, dict[str, tuple[ReadDocument, np.ndarray]]] = {}
        self.seed = 0

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.home)

    @initialize()
    def make(self) -> None:
        for name in COLLECTIONS:
            self.create(name, 0)

    @rule(name=st.sampled_from(COLLECTIONS), which=st.integers(0, 1))
    def create(self, name: str, which: int) -> None:
        self.stores[which].create_collection(
            name, embedder="e5", dimensions=DIMENSIONS, exist_ok=True
        )
        self.model.setdefault(name, {})

    @rule(
        name=st.sampled_from(COLLECTIONS),
        source=st.sampled_from(SOURCES),
        text=TEXTS,
        part=PARTS,
        which=st.integers(0, 1),
    )
    def put(self, name: str, source: str, text: str, part: int, which: int) -> None:
        if name not in self.model:
            return
        chunks = cut(text, 6)
        self.seed += 1
        vectors = units(len(chunks), self.seed)
        given = ReadDocument(source, "제목", text, metadata={"part": part})
        outcome = self.stores[which].put_document(
            name, given, digest=f"d{self.seed}", chunks=chunks, vectors=vectors
        )
        assert outcome == ("updated" if source in self.model[name] else "added")
        self.model[name][source] = (given, vectors)

    @rule(
        name=st.sampled_from(COLLECTIONS), source=st.sampled_from(SOURCES), which=st.integers(0, 1)
    )
    def delete(self, name: str, source: str, which: int) -> None:
        held = self.model.get(name)
        if held is None:
            return
        assert self.stores[which].delete_sources(name, [source]) == (source in held)
        held.pop(source, None)

    @rule(name=st.sampled_from(COLLECTIONS), which=st.integers(0, 1))
    def drop(self, name: str, which: int) -> None:
        if self.model.pop(name, None) is not None:
            self.stores[which].delete_collection(name)

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = open_store(self.home, resident_bytes=0 if which else 2**29)

    @rule(which=st.integers(0, 1), part=st.none() | PARTS, limit=st.integers(1, 12))
    def nearest(self, which: int, part: int | None, limit: int) -> None:
        query = units(1, 31337)[0]
        for name in self.model:
            found = self.stores[which].search_vectors(
                name, query, limit=limit, filter=None if part is None else {"part": part}
            )
            scores = [
                cosine(row, query)
                for document, rows in self.model[name].values()
                if part in (None, document.metadata["part"])
                for row in rows
            ]
            wanted = sorted(scores, reverse=True)[:limit]
            assert [score for _, score in found] == pytest.approx(wanted, abs=1e-9)
            self.whole(self.stores[which], name, [chunk for chunk, _ in found])

    @rule(which=st.integers(0, 1), query=QUERIES, limit=st.integers(1, 12))
    def keywords(self, which: int, query: list[str], limit: int) -> None:
        for name in self.model:
            documents: dict[int, list[str]] = {}
            for document, _ in self.model[name].values():
                for chunk in cut(document.text, 6):
                    documents[len(documents)] = list(chunk.tokens)
            found = self.stores[which].search_lexical(name, query, limit=limit)
            scores = bm25(documents, query).values() if documents else []
            wanted = sorted(scores, reverse=True)[:limit]
            assert [score for _, score in found] == pytest.approx(wanted, abs=1e-4)
            self.whole(self.stores[which], name, [chunk for chunk, _ in found])

    def whole(self, store: DocumentStore, name: str, ids: list[int]) -> None:
        rows = store.chunks(name, ids)
        assert [row.chunk for row in rows] == ids
        sources = {document: source for source, document in store.names(name).items()}
        for row in rows:
            given, _ = self.model[name][sources[row.document]]
            assert row.text == given.text[row.start : row.end]
            assert row.metadata == given.metadata

    @invariant()
    def nothing_is_orphaned(self) -> None:
        for store in self.stores:
            report = store.check()
            assert report.ok, str(report)
        listed: dict[str, Any] = {c.name: c.documents for c in self.stores[0].collections()}
        assert listed == {name: len(held) for name, held in self.model.items()}


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)

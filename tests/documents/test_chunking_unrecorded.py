"""A database from before chunking was recorded: it works, and says how it is cut once it is known."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.documents.test_rechunking import opened

from ondol.app.store_assembly import MIGRATIONS
from ondol.core.chunk_options import ChunkOptions
from ondol.store import lexical
from ondol.store.migrations import APPLICATION_ID, in_order

EARLIER = 4
"""Migrations there were before chunking was recorded."""

SENTENCE = "This is sentence number {n} of a text that is long enough to be cut into pieces. "
TEXT = "".join(SENTENCE.format(n=n) for n in range(20)).strip()
SPANS = [(0, len(TEXT) // 2), (len(TEXT) // 2, len(TEXT))]
DIMENSIONS = 64


def insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table}({', '.join(row)}) VALUES ({marks})", (*row.values(),))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of the version before, with one document of two chunks."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    connection = sqlite3.connect(home / "ondol.db", isolation_level=None)
    for migration in in_order(MIGRATIONS)[:EARLIER]:
        for statement in migration.statements:
            connection.execute(statement)
    kept = {"id": 1, "name": "old", "embedder": "fake-embedder", "dimensions": DIMENSIONS}
    insert(connection, "collections", {**kept, "created": 1.0, "metadata": "{}", "stamp": "s"})
    lexical.create(connection, 1)
    document = {"id": 1, "collection_id": 1, "name": "a.txt", "source": "/gone/a.txt"}
    told = {"title": "a", "media_type": "text/plain", "digest": "0" * 64, "ingested": 1.0}
    rest = {"characters": len(TEXT), "metadata": "{}", "pages": "[]", "container": "/gone/a.txt"}
    insert(connection, "documents", {**document, **told, **rest})
    insert(connection, "texts", {"document_id": 1, "start": 0, "text": TEXT})
    vectors = np.eye(2, DIMENSIONS, dtype="<f2")
    for at, (start, stop) in enumerate(SPANS):
        span = {"id": at + 1, "document_id": 1, "collection_id": 1, "start": start, "stop": stop}
        insert(connection, "chunks", {**span, "heading": "", "vector": vectors[at].tobytes()})
        lexical.add(connection, 1, [(at + 1, TEXT[start:stop].lower().split())])
    connection.execute(f"PRAGMA user_version = {EARLIER}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.close()
    return home


async def test_it_is_searched_as_it_is_and_its_cut_is_not_made_up(home: Path) -> None:
    async with opened(home) as container:
        kept = container.store.collection("old")
        assert (kept.documents, kept.chunks, kept.chunking) == (1, 2, None)
        assert container.store.check(deep=True).ok
        for read in ("passage", "parent"):  # a chunk without a parent stays as it is
            found = await container.retrieval.search("old", "number 3", mode="lexical", read=read)
            assert {(hit.start, hit.end) for hit in found.hits} <= set(SPANS)
            assert found.hits[0].text == TEXT[found.hits[0].start : found.hits[0].end]
        hybrid = await container.retrieval.search("old", "sentence number")
        assert len(hybrid.hits) == 2
    version = sqlite3.connect(home / "ondol.db").execute("PRAGMA user_version").fetchone()[0]
    assert version == len(MIGRATIONS)


async def test_the_next_ingest_records_the_cut_and_leaves_old_documents(home: Path) -> None:
    async with opened(home) as container:
        await container.ingest.ingest_records("old", [{"id": "new", "text": "A short text."}])
        kept = container.store.collection("old")
        assert kept.chunking == container.ingest.chunking()
        assert (kept.documents, kept.chunks) == (2, 3)


async def test_rechunking_cuts_it_from_its_text_and_embeds_all_of_it_once(home: Path) -> None:
    async with opened(home, chunk_chars=200, chunk_overlap=0) as container:
        planned = await container.ingest.rechunk("old", "recursive", dry_run=True)
        assert container.store.collection("old").chunking is None
        done = await container.ingest.rechunk("old", "recursive")
        assert (planned.chunks, planned.embedded) == (done.chunks, done.embedded)
        assert done.embedded == done.chunks > len(SPANS)  # what was embedded before is not known
        assert container.store.collection("old").chunking == ChunkOptions("recursive", 200, 0)
        assert (await container.ingest.rechunk("old")).documents == 0
        wide = await container.retrieval.search("old", "number 3", mode="lexical", read="parent")
        assert wide.hits[0].text == TEXT[wide.hits[0].start : wide.hits[0].end]
        assert len(wide.hits[0].text) > 200
        assert container.store.check(deep=True).ok

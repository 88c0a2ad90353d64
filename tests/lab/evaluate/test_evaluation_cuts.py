"""Cuts are tried in a store of their own: the collection stays, only what is new is embedded."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests import regions
from tests.korean_model import shared_analyzer

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.app.scratch import PREFIX, scratch_folder
from ondol.core.chunk_options import ChunkOptions
from ondol.core.clock import SystemClock
from ondol.core.errors import BackendError, Conflict
from ondol.core.events import BatchRun
from ondol.core.settings import Settings
from ondol.core.types import Passage, ReadDocument
from ondol.lab.evaluate.cut_optimiser import Cut, Optimiser, cutting, scratch_search
from ondol.lab.evaluate.datasets import Query, halves
from ondol.lab.evaluate.retrieval_evaluation import ask_all
from ondol.search.retrieval import SearchResult
from ondol.store.calibration_rows import CalibrationStore
from ondol.store.collection_words import KeywordStore
from ondol.store.records import Collection, NewChunk

RECURSIVE = ChunkOptions("recursive", 400, 60)
HEADING = ChunkOptions("heading", 400, 60)
EVERY = 1000


class Embedded:
    """Counts the texts that reach the embedder."""

    def __init__(self) -> None:
        self.texts = 0

    def observe(self, event: object) -> None:
        if isinstance(event, BatchRun):
            self.texts += event.items


@pytest.fixture
def embedded() -> Embedded:
    return Embedded()


@pytest.fixture
async def container(tmp_path: Path, embedded: Embedded) -> AsyncIterator[Container]:
    settings = Settings.model_validate(
        {"home": tmp_path / "home", "ingest": {"chunking": "recursive"}}
        | {"cache": {"embeddings": "off"}}
    )
    opening = Container.open(
        settings,
        parts=Parts(fake=True, keywords=False, reranker=False, generator=False),
        observer=embedded,
        analyzer=shared_analyzer(),
    )
    async with opening as opened:
        await opened.ingest.ingest_records("c", regions.records())
        yield opened


def digest(home: Path) -> str:
    """Return a digest of every row of documents, texts, chunks and collections of the store."""
    found = hashlib.sha256()
    with sqlite3.connect(home / "ondol.db") as connection:
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        for table in sorted(tables):
            for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY 1'):
                found.update(repr((table, row)).encode())
    connection.close()
    return found.hexdigest()


def kept(container: Container) -> Collection:
    return container.store.collection("c")


async def made(container: Container, *chunkings: ChunkOptions) -> list[Cut]:
    with scratch_folder(container.settings.home) as folder:
        async with cutting(container, kept(container), folder, clock=SystemClock()) as maker:
            return [await maker.make(one) for one in chunkings]


def scores(result: SearchResult) -> dict[tuple[str, int], float]:
    """Return the rounded score of every passage; equals may come in another order."""
    return {(hit.document, hit.start): round(hit.score, 6) for hit in result.hits}


def queries() -> list[Query]:
    return [
        Query(str(n), one["question"], {one["document"]: 1.0})
        for n, one in enumerate(regions.questions())
    ]


async def test_the_better_cut_is_found_and_the_collection_stays_as_it_is(
    container: Container,
) -> None:
    home, told = container.settings.home, list[tuple[int, int, str]]()
    before = digest(home)
    with scratch_folder(home) as folder:
        async with cutting(container, kept(container), folder, clock=SystemClock()) as maker:
            optimiser = Optimiser(container.retrieval, now=lambda: 0.0, cutting=maker)
            found = await optimiser.optimise(
                kept(container),
                queries(),
                container.settings.retrieval,
                cuts=[HEADING, replace(RECURSIVE, target=300)],
                told=lambda done, total, note: told.append((done, total, note)),
            )
    assert found.adopted
    assert found.recut
    assert found.cut.chunking == HEADING
    assert [one.cut.chunking for one in found.cuts] == [
        RECURSIVE,
        HEADING,
        replace(RECURSIVE, target=300),
    ]
    assert {one.settings.top_k for one in found.cuts} == {10}
    assert all(one.cut is found.cut for one in found.trials[3:])
    assert len(found.trials) > 10
    assert found.differences["ndcg_at_10"].low > 0
    assert not found.unsure
    report = found.as_json()
    assert report["chunking"] == {"strategy": "heading", "target": 400, "overlap": 60}
    assert report["trials"][0]["embedded"] == 0
    assert report["trials"][1]["embedded"] > 0
    assert digest(home) == before
    assert not list(home.glob(f"{PREFIX}*"))
    steps = [done for done, _, _ in told]
    assert steps == list(range(1, len(told) + 1))
    assert {total for _, total, _ in told} == {told[0][1]}
    notes = [note for *_, note in told]
    assert notes.count("cutting heading 400") == len(regions.PRODUCTS)


async def test_a_cut_the_other_half_does_not_confirm_is_not_used(container: Container) -> None:
    """Questions that decide are judged by what is found for them now, which none can better."""
    choosing, deciding = halves(queries())
    for at, query in enumerate(deciding):
        now = await container.retrieval.search("c", query.text)
        deciding[at] = replace(query, relevant={now.hits[0].document: 1.0})
    current = container.settings.retrieval
    with scratch_folder(container.settings.home) as folder:
        async with cutting(container, kept(container), folder, clock=SystemClock()) as maker:
            optimiser = Optimiser(container.retrieval, now=lambda: 0.0, cutting=maker)
            found = await optimiser.optimise(
                kept(container), [*choosing, *deciding], current, cuts=[HEADING]
            )
    assert found.chosen.cut.chunking == HEADING
    assert not found.adopted
    assert not found.recut
    assert found.cut.chunking == RECURSIVE
    assert found.settings.model_copy(update={"top_k": current.top_k}) == current


async def test_a_passage_is_embedded_once_whatever_cut_it_first_stood_in(
    container: Container, embedded: Embedded
) -> None:
    before = embedded.texts
    heading, longer, again = await made(
        container, HEADING, replace(HEADING, target=4000), replace(HEADING, overlap=61)
    )
    assert embedded.texts - before == heading.embedded + longer.embedded
    assert 0 < heading.embedded <= (heading.passages or 0)
    assert again.embedded == 0
    same = (await made(container, RECURSIVE))[0]
    assert same.embedded == 0, "the collection has all of these"
    assert same.passages == kept(container).chunks


async def test_a_cut_is_searched_as_the_collection_would_be(container: Container) -> None:
    """The same cut beside the collection finds the same, at the same scores."""
    KeywordStore(container.store.database).set("c", {"synonyms": [["monday", "weekstart"]]})
    CalibrationStore(container.store.database).set("c", {"recipe": "1", "fusion": {"dense": 0.3}})
    with scratch_folder(container.settings.home) as folder:
        async with cutting(container, kept(container), folder, clock=SystemClock()) as maker:
            cut = await maker.make(RECURSIVE)
            for query in (queries()[0].text, "weekstart deliveries"):
                there = await cut.retrieval.search(cut.collection, query, top_k=EVERY)
                here = await container.retrieval.search("c", query, top_k=EVERY)
                assert scores(there) == scores(here)
                assert there.dense_weight == here.dense_weight == 0.3


async def test_documents_keep_their_names(container: Container, tmp_path: Path) -> None:
    """Of two files of one name the first ingested has it, whatever their order in a cut."""
    for house in ("b", "a"):
        (tmp_path / house).mkdir()
        path = tmp_path / house / "rules.txt"
        path.write_text(f"Rules of house {house}.", "utf-8")
        await container.ingest.ingest_paths("c", [path])
    known = container.store.names("c")[str(tmp_path / "a" / "rules.txt")]
    asked = [Query("1", "rules of house a", {known: 1.0})]
    with scratch_folder(container.settings.home) as folder:
        async with cutting(container, kept(container), folder, clock=SystemClock()) as maker:
            cut = await maker.make(HEADING)
            found = await ask_all(
                cut.retrieval,
                cut.collection,
                asked,
                mode="lexical",
                rerank=False,
                now=lambda: 0.0,
                names=cut.names,
            )
    assert cut.names["rules.txt"] == known != "rules.txt"
    assert "rules.txt" in cut.names.values()
    assert found.queries[0].ranked[0] == known


async def test_an_embedder_that_fails_leaves_nothing_behind(container: Container) -> None:
    text = f"{regions.document(0)} <<fail>> {regions.document(1)}"
    container.store.put_document(
        "c",
        ReadDocument("z.txt", "", text),
        digest="d",
        chunks=[NewChunk(Passage(text, 0, len(text), None), ["kept"])],
        vectors=np.eye(1, container.embedding.dimensions, dtype=np.float32),
    )
    home = container.settings.home
    before = digest(home)
    with pytest.raises(BackendError, match="<<fail>>"):
        await made(container, HEADING)
    assert not list(home.glob(f"{PREFIX}*"))
    assert digest(home) == before


async def test_an_interrupted_cut_leaves_nothing_behind(container: Container) -> None:
    home, reached = container.settings.home, asyncio.Event()

    async def work() -> None:
        with scratch_folder(home) as folder:
            async with cutting(container, kept(container), folder, clock=SystemClock()) as maker:
                await maker.make(HEADING, told=reached.set)

    task = asyncio.create_task(work())
    await reached.wait()
    assert len(list(home.glob(f"{PREFIX}*"))) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list(home.glob(f"{PREFIX}*"))


async def test_another_embedders_collection_is_refused(container: Container) -> None:
    other = replace(kept(container), embedder="other")
    with pytest.raises(Conflict, match="other"), scratch_folder(container.settings.home) as folder:
        async with cutting(container, other, folder, clock=SystemClock()):
            raise AssertionError


def test_a_cut_never_writes_into_the_tables_of_a_server(tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path, "vectors": {"index": "postgres"}})
    assert scratch_search(tmp_path / "scratch", settings) is None

"""A collection keeps how it is cut, and is cut anew by embedding only what that changes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.korean_model import shared_analyzer

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.chunk_options import ChunkOptions
from ondol.core.errors import BackendError, Conflict, NotFound
from ondol.core.events import BatchRun
from ondol.core.settings import Settings
from ondol.core.types import Hit, Passage, ReadDocument
from ondol.documents.ingest import IngestService
from ondol.documents.readers import IsolatedReader
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.store.records import NewChunk

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "This is sentence number {n} of a text that is long enough to be cut into pieces."
LONG = " ".join(SENTENCE.format(n=n) for n in range(40))
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from ondol.core.settings import Settings
from ondol.app.components import Parts
from ondol.app.container import Container
async def main(home, after):
    settings = Settings.model_validate({"home": home})
    parts = Parts(fake=True, keywords=False, reranker=False, generator=False)
    async with Container.open(settings, parts=parts) as container:
        store, write, left = container.store, container.store.recut_document, [after]
        def recut(*args, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return write(*args, **options)
        store.recut_document = recut
        await container.ingest.rechunk("c", "recursive")
asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


class Embedded:
    """Counts the texts that reach the embedder."""

    def __init__(self) -> None:
        self.texts = 0

    def observe(self, event: object) -> None:
        if isinstance(event, BatchRun):
            self.texts += event.items


def opened(home: Path, observer: Embedded | None = None, **ingest: Any) -> Container:
    settings = Settings.model_validate(
        {"home": home, "ingest": ingest, "cache": {"embeddings": "off"}}
    )
    return Container.open(
        settings,
        parts=Parts(fake=True, keywords=False, reranker=False, generator=False),
        observer=observer,
        analyzer=shared_analyzer(),
    )


@pytest.fixture
def embedded() -> Embedded:
    return Embedded()


@pytest.fixture
async def container(tmp_path: Path, embedded: Embedded) -> AsyncIterator[Container]:
    async with opened(tmp_path / "home", embedded) as container:
        yield container


def mixed() -> list[dict[str, Any]]:
    short = [{"id": f"s{n}", "text": f"A short text, number {n}."} for n in (1, 2, 3)]
    return [{"id": "long", "text": LONG}, *short]


def spans(container: Container, source: str = "records.json#long") -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in container.store.passages.kept("c", source)]


async def test_a_collection_keeps_the_way_it_was_first_cut(tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = tmp_path / "a.txt"
    path.write_text(LONG, "utf-8")
    async with opened(home, chunk_chars=200) as container:
        await container.ingest.ingest_paths("c", [path], chunking="recursive")
        assert container.store.collection("c").chunking == ChunkOptions("recursive", 200, 60)
        with pytest.raises(Conflict, match="recursive") as refused:
            await container.ingest.ingest_paths("c", [path], chunking="record")
        assert "rechunk c --chunking record" in refused.value.hint
    async with opened(home, chunk_chars=400) as container:
        again = await container.ingest.ingest_paths("c", [path])
        assert (again.unchanged, again.chunks) == (1, 0)
        assert container.store.collection("c").chunking == ChunkOptions("recursive", 200, 60)


async def test_rechunking_embeds_only_passages_whose_text_changed(tmp_path: Path) -> None:
    home, embedded = tmp_path / "home", Embedded()
    sections = "\n\n".join(
        f"# Part {n}\n\n{SENTENCE.format(n=n) * (9 if n == 3 else 2)}" for n in range(6)
    )
    path = tmp_path / "a.md"
    path.write_text(sections, "utf-8")
    async with opened(home, embedded) as container:
        report = await container.ingest.ingest_paths("c", [path])
        assert report.embedded == report.chunks == embedded.texts
    embedded = Embedded()
    async with opened(home, embedded, chunk_chars=200) as container:
        done = await container.ingest.rechunk("c")
        assert (done.documents, done.rechunked) == (1, 1)
        assert 0 < done.embedded == embedded.texts < done.chunks
        again = await container.ingest.ingest_paths("c", [path])
        assert (again.unchanged, again.embedded) == (1, 0)
        assert container.store.check().ok


async def test_documents_that_come_out_the_same_are_not_written(
    container: Container, embedded: Embedded
) -> None:
    await container.ingest.ingest_records("c", mixed())
    before = embedded.texts
    done = await container.ingest.rechunk("c", "recursive")
    assert (done.documents, done.unchanged, done.embedded) == (4, 4, 0)
    assert embedded.texts == before
    again = await container.ingest.rechunk("c")
    assert (again.documents, again.rechunked, again.embedded) == (0, 0, 0)
    assert json.loads(json.dumps(asdict(done)))["chunking"]["strategy"] == "recursive"


async def test_a_changed_file_embeds_only_its_changed_passages(
    container: Container, embedded: Embedded, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(LONG, "utf-8")
    first = await container.ingest.ingest_paths("c", [path])
    path.write_text(LONG + " And one sentence more at its end.", "utf-8")
    before = embedded.texts
    second = await container.ingest.ingest_paths("c", [path])
    assert second.updated == 1
    assert 1 <= second.embedded == embedded.texts - before < first.chunks


async def test_a_document_whose_embedding_fails_stays_as_it_was(container: Container) -> None:
    await container.ingest.ingest_records("c", [{"id": "fine", "text": LONG}])
    text = f"{LONG} <<fail>> {LONG}"
    container.store.put_document(
        "c",
        ReadDocument("bad.txt", "", text),
        digest="d",
        chunks=[NewChunk(Passage(text, 0, len(text), None), ["kept"])],
        vectors=np.eye(1, container.embedding.dimensions, dtype=np.float32),
    )
    done = await container.ingest.rechunk("c", "recursive")
    assert [one["source"] for one in done.failed] == ["bad.txt"]
    assert spans(container, "bad.txt") == [(0, len(text))]
    assert container.store.digests("c")["bad.txt"] == "d"
    with pytest.raises(NotFound):
        await container.ingest.rechunk("other")


async def test_a_document_that_changed_meanwhile_is_not_overwritten(container: Container) -> None:
    source = "records.json#long"
    await container.ingest.ingest_records("c", [{"id": "long", "text": LONG}])
    store = container.store
    was = store.digests("c")[source]
    assert store.passages.mark("c", source, was=was, digest="newer:1")
    assert not store.passages.mark("c", source, was=was, digest="lost:1")
    vector = np.eye(1, container.embedding.dimensions, dtype=np.float32)
    kept = spans(container)
    assert not store.recut_document(
        "c",
        ReadDocument(source, "", LONG),
        was=was,
        digest="lost:1",
        chunks=[NewChunk(Passage(LONG, 0, len(LONG), None), ["lost"])],
        vectors=vector,
    )
    assert spans(container) == kept
    assert store.digests("c")[source] == "newer:1"


async def test_kill_9_between_documents_loses_nothing_and_the_next_run_goes_on(
    tmp_path: Path,
) -> None:
    home, after = tmp_path / "home", 1
    records = [{"id": f"d{n}", "text": LONG.replace("text", f"text{n}")} for n in range(3)]
    async with opened(home, chunk_chars=200) as container:
        await container.ingest.ingest_records("c", records)
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED, str(home), str(after)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    async with opened(home) as container:
        assert container.store.check(deep=True).ok
        found = await container.retrieval.search("c", "sentence number", mode="lexical", top_k=99)
        assert {hit.document for hit in found.hits} == {"d0", "d1", "d2"}
        done = await container.ingest.rechunk("c")
        assert (done.chunking.strategy, done.documents) == ("recursive", 3 - after)
        assert (await container.ingest.rechunk("c")).documents == 0
        assert container.store.check(deep=True).ok


async def test_parents_are_read_around_hits_and_siblings_collapse(container: Container) -> None:
    await container.ingest.ingest_records("c", mixed())
    stored = container.store.document("c", "long").text
    chunks = await container.retrieval.search("c", "sentence number 12", mode="lexical", top_k=8)
    settings = container.settings.retrieval.model_copy(
        update={"read": "parent", "parent_chars": 1000}
    )
    reading = container.retrieval.under(settings)
    parents = await reading.search("c", "sentence number 12", mode="lexical", top_k=8)
    assert parents.hits[0].chunk == chunks.hits[0].chunk
    assert len(parents.hits) < len(chunks.hits)
    assert len(parents.hits[0].text) > len(chunks.hits[0].text)
    _check_windows(stored, [hit for hit in parents.hits if hit.document == "long"], chars=1000)


def _check_windows(stored: str, hits: list[Hit], *, chars: int) -> None:
    assert hits
    for hit in hits:
        assert hit.text == stored[hit.start : hit.end]
        assert len(hit.text) <= chars


class Breaking:
    """An embedding service that raises once it has embedded ``left`` times, as a lost one does."""

    def __init__(self, inner: EmbeddingService, left: int) -> None:
        self._inner = inner
        self._left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def embed_each(self, texts: Sequence[str], **options: Any) -> list[Any]:
        if self._left == 0:
            raise BackendError("the encoder is gone", hint="start it again")
        self._left -= 1
        return await self._inner.embed_each(texts, **options)


async def test_an_embedder_that_breaks_midway_leaves_all_searchable_and_is_caught_up(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    records = [{"id": f"d{n:02}", "text": LONG.replace("text", f"text{n}")} for n in range(12)]
    async with opened(home) as container:
        await container.ingest.ingest_records("c", records)
    async with opened(home, chunk_chars=200, chunk_overlap=0) as container:
        store = container.store
        before = store.digests("c")
        breaking = IngestService(
            store,
            cast("EmbeddingService", Breaking(container.embedding, 1)),
            shared_analyzer(),
            IsolatedReader(),  # starts nothing until it reads
            settings=container.settings.ingest,
        )
        with pytest.raises(BackendError, match="gone"):
            await breaking.rechunk("c", "recursive")
        changed = sum(before[source] != digest for source, digest in store.digests("c").items())
        assert 0 < changed < len(records)
        assert store.collection("c").chunking == ChunkOptions("recursive", 200, 0)
        assert store.check(deep=True).ok
        for mode in ("lexical", "hybrid"):
            found = await container.retrieval.search("c", "sentence", mode=mode, top_k=500)
            assert len({hit.document for hit in found.hits}) == len(records)
            for hit in found.hits[:20]:
                assert hit.text == store.document("c", hit.document).text[hit.start : hit.end]
        done = await container.ingest.rechunk("c")
        assert (done.documents, done.rechunked) == (len(records) - changed,) * 2
        assert (await container.ingest.rechunk("c")).documents == 0
        assert store.check(deep=True).ok

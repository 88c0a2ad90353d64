from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondol.app.container import Container
from ondol.core.errors import NotFound
from ondol.core.types import ReadDocument
from ondol.documents.ingest import IngestService
from ondol.documents.ingest_report import IngestProgress
from ondol.documents.readers import ReadFailure, ReadLimits, read_bytes


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def records(path: Path, rows: list[dict[str, object]]) -> Path:
    return write(path, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))


async def test_unchanged_files_embed_nothing_and_changed_ones_replace(
    container: Container, tmp_path: Path
) -> None:
    one = write(tmp_path / "in/one.md", "# 휴가\n연차는 15일이다.")
    write(tmp_path / "in/two.txt", "The shuttle leaves at 7:40.")
    first = await container.ingest.ingest_paths("c", [tmp_path / "in"])
    assert (first.added, first.unchanged, first.failed) == (2, 0, [])
    again = await container.ingest.ingest_paths("c", [tmp_path / "in"])
    assert (again.added, again.unchanged, again.chunks) == (0, 2, 0)
    write(one, "# 휴가\n연차는 17일이다.")
    changed = await container.ingest.ingest_paths("c", [tmp_path / "in"])
    assert (changed.updated, changed.unchanged) == (1, 1)
    found = await container.retrieval.search("c", "연차는 며칠", mode="lexical")
    assert [hit.text for hit in found.hits if "15일" in hit.text] == []
    assert container.store.check().ok


async def test_a_bad_file_fails_alone_and_names_the_remedy(
    container: Container, tmp_path: Path
) -> None:
    write(tmp_path / "in/good.txt", "좋은 문서입니다.")
    (tmp_path / "in/bad.pdf").write_bytes(b"not a pdf at all")
    (tmp_path / "in/empty.txt").write_bytes(b"")
    report = await container.ingest.ingest_paths("c", [tmp_path / "in"])
    assert report.added == 1
    assert {Path(f.source).name for f in report.failed} == {"bad.pdf", "empty.txt"}
    assert all(f.hint and Path(f.source).name in f.error for f in report.failed)


async def test_a_record_that_left_its_file_leaves_the_collection(
    container: Container, tmp_path: Path
) -> None:
    path = records(tmp_path / "r.jsonl", [{"id": "a", "text": "하나"}, {"id": "b", "text": "둘"}])
    await container.ingest.ingest_paths("c", [path])
    records(path, [{"id": "b", "text": "둘"}, {"id": "c", "text": "셋"}])
    report = await container.ingest.ingest_paths("c", [path])
    assert (report.added, report.unchanged, report.removed) == (1, 1, 1)
    names = {d.document for d in container.store.documents("c")}
    assert names == {"b", "c"}


async def test_a_malformed_line_does_not_remove_what_was_there(
    container: Container, tmp_path: Path
) -> None:
    path = records(tmp_path / "r.jsonl", [{"id": "a", "text": "하나"}, {"id": "b", "text": "둘"}])
    await container.ingest.ingest_paths("c", [path])
    path.write_text('{"id": "a", "text": "하나"}\n{"id": "b", "te', "utf-8")
    report = await container.ingest.ingest_paths("c", [path])
    assert report.removed == 0
    assert len(report.failed) == 1
    assert "b" in {d.document for d in container.store.documents("c")}


async def test_a_document_whose_embedding_fails_is_reported_alone(container: Container) -> None:
    report = await container.ingest.ingest_records(
        "c", [{"id": "x", "text": "<<fail>>"}, {"id": "y", "text": "fine"}]
    )
    assert report.added == 1
    assert [f.code for f in report.failed] == ["backend_failed"]


async def test_records_over_http_shape_and_uploads_have_stable_names(
    container: Container, tmp_path: Path
) -> None:
    await container.ingest.ingest_records("c", [{"id": "r1", "text": "하나"}])
    again = await container.ingest.ingest_records("c", [{"id": "r1", "text": "하나"}])
    assert again.unchanged == 1
    data = write(tmp_path / "tmp-upload.txt", "올린 문서")
    report = await container.ingest.ingest_upload("c", "규정.txt", data)
    assert report.added == 1
    assert {d.document for d in container.store.documents("c")} == {"r1", "규정.txt"}


async def test_a_path_that_does_not_exist_is_named_before_anything_is_read(
    container: Container, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await container.ingest.ingest_paths("c", [tmp_path / "nowhere"])


async def test_progress_reaches_the_end(container: Container, tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"in/{n}.txt", f"문서 {n}")
    told: list[IngestProgress] = []
    await container.ingest.ingest_paths("c", [tmp_path / "in"], progress=told.append)
    assert told[-1].done_files == told[-1].total_files == 3
    assert told[-1].bytes_done == told[-1].bytes_total


class HeldReader:
    """Reads a file called ``held`` only once it is let go."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.let_go = threading.Event()

    def read(self, path: Path, *, limits: ReadLimits) -> Iterator[ReadDocument | ReadFailure]:
        if path.stem == "held":
            self.reading.set()
            self.let_go.wait(60)
        yield from read_bytes(path.read_bytes(), name=path.name, limits=limits)


async def test_collections_wait_for_themselves_only(container: Container, tmp_path: Path) -> None:
    reader = HeldReader()
    ingest = IngestService(
        container.store,
        container.embedding,
        container.analyzer,
        reader,
        settings=container.settings.ingest,
    )
    long = asyncio.create_task(
        ingest.ingest_paths("long", [write(tmp_path / "held.txt", "slowly read")])
    )
    await asyncio.to_thread(reader.reading.wait, 60)
    other = await ingest.ingest_paths("other", [write(tmp_path / "quick.txt", "quickly read")])
    assert other.added == 1
    same = asyncio.create_task(
        ingest.ingest_records("long", [{"id": "a", "text": "after the file"}])
    )
    await ingest.ingest_records("other", [{"id": "b", "text": "meanwhile"}])
    assert not long.done()
    assert not same.done()
    reader.let_go.set()
    assert [(await long).added, (await same).added] == [1, 1]

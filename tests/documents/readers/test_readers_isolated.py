"""The reader in its child process: limits, deaths, streaming, and what is left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.documents.readers.documents import DATA, pdf

from ondol.core.errors import Cancelled
from ondol.core.types import ReadDocument
from ondol.documents.readers import IsolatedReader, ReadFailure, ReadLimits, read

LIMITS = ReadLimits()


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    with IsolatedReader() as reader:
        yield reader


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many.jsonl"
    line = '{"text": "' + "휴가 규정이다. " * 120 + '"}\n'
    path.write_text(line * 5_000, "utf-8")
    return path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_equal_reading_in_process(reader: IsolatedReader) -> None:
    for path in (*sorted(DATA.iterdir()), DATA / "absent"):
        isolated, direct = list(reader.read(path, limits=LIMITS)), list(read(path, limits=LIMITS))
        assert [i for i in isolated if isinstance(i, ReadDocument)] == [
            i for i in direct if isinstance(i, ReadDocument)
        ]
        assert [i.error.message for i in isolated if isinstance(i, ReadFailure)] == [
            i.error.message for i in direct if isinstance(i, ReadFailure)
        ]


def test_uploads_read_too(reader: IsolatedReader) -> None:
    (item,) = reader.read_bytes(pdf(texts=["Words of a page."]), name="up.pdf", limits=LIMITS)
    assert isinstance(item, ReadDocument)
    assert item.pages[0].number == 1


def test_the_child_is_reused_and_then_replaced() -> None:
    with IsolatedReader(files_per_child=2) as reader:
        pids = []
        for _ in range(4):
            (_,) = reader.read(DATA / "guide.md", limits=LIMITS)
            pids.append(reader.child_pid)
        assert pids[0] is not None
        assert pids[1] is None
        assert pids[2] not in {None, pids[0]}


def test_a_timeout_keeps_what_was_read_and_the_next_file_goes_on(
    reader: IsolatedReader, many: Path
) -> None:
    *_, last = reader.read(many, limits=ReadLimits(seconds=0.0))
    assert isinstance(last, ReadFailure)
    assert (last.source, last.error.code) == (str(many), "timeout")
    (item,) = reader.read(DATA / "guide.md", limits=LIMITS)
    assert isinstance(item, ReadDocument)


@pytest.mark.parametrize(
    ("killed_by", "expected"),
    [(signal.SIGSEGV, "damaged"), (signal.SIGABRT, "damaged"), (signal.SIGKILL, "too_large"), (signal.SIGXCPU, "timeout")],
)  # fmt: skip
def test_a_dying_child_costs_its_file_only(
    reader: IsolatedReader, many: Path, killed_by: signal.Signals, expected: str
) -> None:
    items = reader.read(many, limits=LIMITS)
    assert isinstance(next(items), ReadDocument)
    assert reader.child_pid is not None
    os.kill(reader.child_pid, killed_by)
    *_, last = items
    assert isinstance(last, ReadFailure)
    assert last.error.code == expected
    assert str(many) in last.error.message
    (item,) = reader.read(DATA / "guide.md", limits=LIMITS)
    assert isinstance(item, ReadDocument)


def test_a_child_that_died_while_idle_is_replaced(reader: IsolatedReader) -> None:
    (_,) = reader.read(DATA / "guide.md", limits=LIMITS)
    assert reader.child_pid is not None
    os.kill(reader.child_pid, signal.SIGKILL)
    (item,) = reader.read(DATA / "guide.md", limits=LIMITS)
    assert isinstance(item, ReadDocument) or item.error.code == "too_large"
    (item,) = reader.read(DATA / "guide.md", limits=LIMITS)
    assert isinstance(item, ReadDocument)


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    path.write_bytes(b"word " * 20_000_000)
    limits = ReadLimits(max_file_bytes=10**9, max_chars=10**9)
    with IsolatedReader(memory_bytes=300 * 1024**2) as reader:
        (item,) = reader.read(path, limits=limits)
        assert isinstance(item, ReadFailure)
        assert item.error.code == "too_large"
        (item,) = reader.read(DATA / "guide.md", limits=LIMITS)
        assert isinstance(item, ReadDocument)


def test_many_records_stream_and_leaving_ends_the_child(reader: IsolatedReader, many: Path) -> None:
    assert sum(isinstance(item, ReadDocument) for item in reader.read(many, limits=LIMITS)) == 5_000
    items = reader.read(many, limits=LIMITS)
    next(items)
    pid = reader.child_pid
    assert pid is not None
    items.close()  # type: ignore[attr-defined]
    assert not alive(pid)


def test_close_ends_a_read_under_way(many: Path) -> None:
    reader = IsolatedReader()
    items = reader.read(many, limits=LIMITS)
    next(items)
    pid = reader.child_pid
    threading.Thread(target=reader.close).start()
    with pytest.raises(Cancelled):
        for _ in items:
            pass
    assert pid is not None
    assert not alive(pid)
    with pytest.raises(Cancelled):
        list(reader.read(DATA / "guide.md", limits=LIMITS))


def test_nothing_starts_before_the_first_file() -> None:
    reader = IsolatedReader()
    assert reader.child_pid is None
    reader.close()

"""No file may crash, hang or fill the reader, or pass noise off as a document.

Files of our own for every kind, through the child process that ingest uses; and every file of the
shared PDF, HWP and text sets, read in place, against ``tests/data/hostile_files.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.hostile_files import (
    MOST_CHARS,
    WORDS,
    Hostile,
    form_that_draws_itself,
    hostile_files,
)
from tests.documents.readers.documents import pdf

from ondol.core.types import ReadDocument
from ondol.documents.readers import IsolatedReader, ReadFailure, ReadItem, ReadLimits

FILES = hostile_files()
LIMITS = ReadLimits(max_chars=MOST_CHARS, seconds=30.0)
SHARED_LIMITS = ReadLimits(seconds=30.0)
EXPECTED: dict[str, dict[str, dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "data" / "hostile_files.json").read_text("utf-8")
)
LONG_PAGES = 100


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    with IsolatedReader(memory_bytes=700 * 2**20) as opened:
        yield opened


def outcome(items: list[ReadItem]) -> str:
    """Say what came of a file: the code of its failure, else ``read``."""
    read = [item for item in items if isinstance(item, ReadDocument)]
    failures = {item.error.code for item in items if isinstance(item, ReadFailure)}
    return "read" if read else "/".join(sorted(failures))


@pytest.mark.parametrize("name", FILES)
def test_each_hostile_file_gives_what_is_said_of_it(name: str, reader: IsolatedReader) -> None:
    given: Hostile = FILES[name]
    items = list(reader.read_bytes(given.data, name=name, limits=LIMITS))
    child = reader.child_pid
    assert outcome(items) == (given.code or "read"), items
    for item in items:
        if isinstance(item, ReadFailure):
            assert name in item.error.message
            assert item.error.hint
    said = [item for item in items if isinstance(item, ReadDocument)]
    assert given.says in "\n".join(item.text for item in said)
    assert given.warns in "\n".join(warning for item in said for warning in item.warnings)
    after = list(reader.read_bytes(pdf(texts=[WORDS]), name="next.pdf", limits=LIMITS))
    assert outcome(after) == "read"
    assert reader.child_pid == child, "the next file needed a new child"


def test_a_page_without_end_costs_its_own_time_only(reader: IsolatedReader) -> None:
    endless = form_that_draws_itself(times=2)
    (item,) = reader.read_bytes(endless, name="a.pdf", limits=replace(LIMITS, seconds=0.3))
    assert isinstance(item, ReadFailure)
    assert item.error.code == "timeout"
    after = list(reader.read_bytes(pdf(texts=[WORDS]), name="next.pdf", limits=LIMITS))
    assert outcome(after) == "read"


def test_expectations_cover_the_shared_sets(shared_data: Path) -> None:
    for folder, expected in EXPECTED.items():
        held = {path.name for path in (shared_data / folder).iterdir()}
        assert held - {"README.md", "manifest.jsonl"} == set(expected), folder


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (folder, name)
        for folder, expected in EXPECTED.items()
        for name, wanted in expected.items()
        if wanted.get("pages", 0) < LONG_PAGES
    ],
)
def test_each_shared_file_gives_what_is_said_of_it(
    folder: str, name: str, reader: IsolatedReader, shared_data: Path
) -> None:
    wanted = EXPECTED[folder][name]
    items = list(reader.read(shared_data / folder / name, limits=SHARED_LIMITS))
    assert outcome(items) == wanted.get("refused", "read"), items
    said = [item for item in items if isinstance(item, ReadDocument)]
    assert wanted.get("says", "") in "\n".join(item.text for item in said)
    warnings = "\n".join(warning for item in said for warning in item.warnings)
    assert wanted.get("warns", "") in warnings
    if "pages" in wanted:
        assert len(said[0].pages) == wanted["pages"]
    if "documents" in wanted:
        assert len(said) == wanted["documents"]

"""``ondol collections rechunk`` and ``--read``, as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run

SENTENCE = "Staff member number {n} may take fifteen days of annual leave in every year."
LONG = "# Leave\n\n" + " ".join(SENTENCE.format(n=n) for n in range(20)) + "\n"


@pytest.fixture
def long(tmp_path: Path, run: Run) -> str:
    """A collection of a document of many passages and one of a single passage."""
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "leave.md").write_text(LONG, "utf-8")
    (folder / "parking.txt").write_text("Guests park in bay 42 behind the house.\n", "utf-8")
    assert run("ingest", str(folder), "-c", "long", "--chunking", "heading").code == 0
    return "long"


def shown(run: Run, name: str) -> Any:
    return run("collections", "show", name, "--json").data


def test_the_strategy_changes_and_only_changed_passages_are_embedded(run: Run, long: str) -> None:
    before = shown(run, long)
    assert before["chunking"]["strategy"] == "heading"
    done = run("collections", "rechunk", long, "--chunking", "recursive", "--json")
    assert done.code == 0, done.err
    report = done.data
    assert report["chunking"]["strategy"] == "recursive"
    assert (report["documents"], report["rechunked"], report["unchanged"]) == (2, 1, 1)
    assert (report["failed"], report["dry_run"]) == ([], False)
    after = shown(run, long)
    assert after["chunking"]["strategy"] == "recursive"
    assert after["documents"] == before["documents"]
    again = run("collections", "rechunk", long)
    assert again.code == 0
    assert "0 documents cut anew" in again.out
    assert "0 of them embedded" in again.out
    told = run("collections", "show", long).out
    assert "recursive, about" in told


def test_passages_whose_text_stays_keep_their_vectors(run: Run, tmp_path: Path) -> None:
    parts = [SENTENCE.format(n=n) * (9 if n == 3 else 2) for n in range(6)]
    path = tmp_path / "parts.md"
    path.write_text("\n\n".join(f"# Part {n}\n\n{part}" for n, part in enumerate(parts)), "utf-8")
    assert run("ingest", str(path), "-c", "parts").code == 0
    report = run(
        "collections", "rechunk", "parts", "--set", "ingest.chunk_chars=200", "--json"
    ).data
    assert (report["chunking"]["target"], report["rechunked"]) == (200, 1)
    assert 0 < report["embedded"] < report["chunks"] == shown(run, "parts")["chunks"]


def test_a_dry_run_tells_and_changes_nothing(run: Run, long: str) -> None:
    before = shown(run, long)
    found = run("search", "annual leave", "-c", long, "--mode", "lexical", "--json").data["hits"]
    planned = run("collections", "rechunk", long, "--chunking", "recursive", "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert planned.data["dry_run"] is True
    assert (planned.data["rechunked"], planned.data["unchanged"]) == (1, 1)
    assert "nothing was changed" in run("collections", "rechunk", long, "--dry-run").out
    assert shown(run, long) == before
    again = run("search", "annual leave", "-c", long, "--mode", "lexical", "--json").data["hits"]
    assert again == found
    done = run("collections", "rechunk", long, "--chunking", "recursive", "--json").data
    same = ("documents", "rechunked", "unchanged", "chunks", "embedded")
    assert {key: done[key] for key in same} == {key: planned.data[key] for key in same}


def test_an_unknown_collection_and_a_bad_strategy_are_told(run: Run) -> None:
    unknown = run("collections", "rechunk", "lang")
    assert unknown.code == 2
    assert "collection 'lang' does not exist" in unknown.err
    assert "hint:" in unknown.err
    bad = run("collections", "rechunk", "lang", "--chunking", "page")
    assert bad.code == 2
    assert "'page' is not one of" in bad.err
    assert "'statute'" in bad.err


def test_search_and_ask_read_what_stands_around(run: Run, long: str) -> None:
    base = ["search", "member number 12", "-c", long, "--mode", "lexical", "--json"]
    small = run(*base).data
    large = run(*base, "--read", "parent").data
    assert (small["read"], large["read"]) == ("passage", "parent")
    assert len(large["hits"]) < len(small["hits"])
    assert len(large["hits"][0]["text"]) > len(small["hits"][0]["text"])
    assert run(*base, "--set", "retrieval.read=parent").data["hits"] == large["hits"]
    kept = run(*base, "--set", "retrieval.read=parent", "--read", "passage").data
    assert kept["hits"] == small["hits"]
    bad = run(*base, "--read", "page")
    assert bad.code == 2
    assert "passage" in bad.err
    asked = run("ask", "member number 12", "-c", long, "--read", "parent", "--json")
    assert asked.code == 0, asked.err
    assert run("ask", "q", "-c", long, "--read", "page").code == 2

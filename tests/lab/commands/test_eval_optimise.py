"""``ondol eval optimise`` over documents that one way of cutting suits better than the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests import regions
from tests.cli.conftest import Run

from ondol.app.scratch import PREFIX


@pytest.fixture
def asked(run: Run, tmp_path: Path) -> tuple[str, ...]:
    """The command line, over documents that are cut regardless of their headings."""
    lines = tmp_path / "rules.jsonl"
    _write(lines, regions.records())
    questions = tmp_path / "questions.jsonl"
    _write(questions, regions.questions())
    assert run("ingest", str(lines), "-c", "rules", "--chunking", "recursive").code == 0
    return ("eval", "optimise", "--dataset", str(questions), "-c", "rules")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_the_better_cut_is_printed_as_a_command_that_works(
    asked: tuple[str, ...], run: Run
) -> None:
    shown = ("collections", "show", "rules", "--json")
    before = run(*shown).data
    found = run(*asked, "--chunking", "--chunk-chars", "400,500", "--json").data
    assert found["recut"]
    assert found["adopted"]
    assert not found["unsure"]
    cuts = {(one["chunking"]["strategy"], one["chunking"]["target"]) for one in found["trials"]}
    assert cuts == {(how, n) for how in ("auto", "heading", "recursive") for n in (400, 500)}
    assert sum(one["embedded"] for one in found["trials"]) > 0
    assert run(*shown).data == before
    assert not list(Path(os.environ["ONDOL_HOME"]).glob(f"{PREFIX}*"))
    (command,) = found["commands"]
    assert command.startswith("ondol collections rechunk rules --chunking ")
    assert run(*command.split()[1:]).code == 0
    after = run(*shown).data
    assert after["chunking"] == found["chunking"]
    again = run(*asked, "--json").data
    assert again["before"]["recall_at_10"] >= found["before"]["recall_at_10"]
    assert again["trials"][0]["ndcg_at_10"] > found["trials"][0]["ndcg_at_10"]


def test_the_tables_tell_what_each_cut_costs(asked: tuple[str, ...], run: Run) -> None:
    told = run(*asked, "--chunking", "heading", "--set", "ingest.chunk_chars=300")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[0].split() == [
        *("CUT", "PASSAGES", "EMBEDDED", "SECONDS"),
        *("NDCG_AT_10", "RECALL_AT_10"),
    ]
    assert [line.split()[:2] for line in lines[1:3]] == [["recursive", "400"], ["heading", "400"]]
    assert lines[1].split()[3] == "0"
    assert "TOP_K" in told.out
    rechunk = "ondol collections rechunk rules --chunking heading --set ingest.chunk_chars=400"
    assert rechunk in lines
    assert "[retrieval]" in lines
    assert "nDCG@10 +" in told.err


def test_without_the_option_nothing_is_cut(asked: tuple[str, ...], run: Run) -> None:
    found = run(*asked, "--json").data
    assert not found["recut"]
    assert found["commands"] == []
    assert {one["cut_seconds"] for one in found["trials"]} == {0.0}
    same = run(*asked, "--chunking", "recursive")
    assert same.code == 0
    assert "is cut so already" in same.err
    assert "CUT" not in same.out


def test_what_cannot_be_tried_is_told_first(asked: tuple[str, ...], run: Run) -> None:
    assert "none of auto" in run(*asked, "--chunking", "heading,headings").err
    assert "no list of lengths" in run(*asked, "--chunk-chars", "300,0").err
    refused = run(*asked, "--chunk-chars", "50")
    assert refused.code == 2
    assert "cannot repeat 60" in refused.err
    none = run(*asked, "--chunking", "--set", "models.embedder=none")
    assert none.code == 2
    assert "must be embedded" in none.err

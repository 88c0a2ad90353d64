from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run


@pytest.mark.usefixtures("notes")
def test_words_are_kept_and_shown(run: Run, tmp_path: Path) -> None:
    synonyms = tmp_path / "s.csv"
    synonyms.write_text("leave,vacation\n", "utf-8")
    words = tmp_path / "d.txt"
    words.write_text("annual leave\n", "utf-8")
    given = ["--synonyms", str(synonyms), "--dictionary", str(words), "--json"]
    first = run("collections", "keywords", "notes", *given)
    assert first.code == 0, first.err
    assert first.data["synonyms"] == first.data["dictionary"] == 1
    assert first.data["reindexed"] == first.data["chunks"] > 0
    synonyms.unlink()
    words.unlink()
    again = run("collections", "keywords", "notes")
    assert again.code == 0
    assert "groups of synonyms" in again.out
    found = run("search", "vacation", "-c", "notes", "--mode", "lexical", "--json")
    assert found.data["hits"][0]["document"] == "leave.md"


def test_a_bad_file_and_an_unknown_collection(run: Run, tmp_path: Path) -> None:
    assert run("collections", "keywords", "none").code == 2
    file = tmp_path / "s.csv"
    file.write_text("alone\n", "utf-8")
    told = run("collections", "keywords", "none", "--synonyms", str(file))
    assert told.code == 2
    assert "hint:" in told.err

"""Packs: what is shipped is sound, and what is wrong with one is told with file, key and remedy."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.tasks.stage import filling, tasks_on

from ondol.app.container import Container
from ondol.core.errors import InvalidInput
from ondol.tasks.classifier import load_classifier
from ondol.tasks.pack_file import check_pack, read_pack
from ondol.tasks.pack_library import PackLibrary, shipped_folder


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A copy of a shipped pack, to be damaged."""
    folder = tmp_path / "legal"
    shutil.copytree(shipped_folder() / "legal", folder, ignore=shutil.ignore_patterns("*.py*"))
    return folder


@pytest.mark.parametrize("name", ["reviews", "legal"])
def test_shipped_packs_are_sound(name: str) -> None:
    assert check_pack(shipped_folder() / name, built_in=True) == []


def test_shipped_classifiers_name_their_sources_and_licences() -> None:
    for path in sorted(shipped_folder().glob("*/classifiers/*.npz")):
        notice = (path.parent / "NOTICE").read_text("utf-8")
        licences = re.findall(r"CC0 1\.0|CC BY \d\.\d|Apache-2\.0", load_classifier(path).about)
        assert licences, path.name
        assert path.name in notice
        assert [one for one in licences if one not in notice] == []


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "rule"),
    [
        ("pack.toml", 'lane = "search"', 'lane = "serch"', "tasks.search.lane", "no lane 'serch'"),
        (
            "pack.toml",
            'use = "tags"',
            'use = "python"',
            "tasks.case_analysis.steps[7].use",
            "no step",
        ),
        ("pack.toml", "entry_tokens", "entry_tokns", "steps[1].entry_tokns", "unknown"),
        ("pack.toml", 'version = "1"', 'version = "1"\ncode = "x"', "code", "unknown"),
        (
            "pack.toml",
            "schemas/case.json",
            "../../case.json",
            "tasks.case_analysis.input",
            "outside",
        ),
        (
            "pack.toml",
            "schemas/case.json",
            "schemas/none.json",
            "tasks.case_analysis.input",
            "not there",
        ),
        ("pack.toml", "name =", "name", "", "not valid TOML"),
        (
            "pack.toml",
            'field = "text", marker = "s"',
            'field = "txt", marker = "s"',
            "entries.field",
            "no field",
        ),
        (
            "schemas/case_analysis.json",
            '"additionalProperties": false',
            '"additionalProperties": true',
            "additionalProperties",
            "not closed",
        ),
        ("schemas/case.json", '"type": "object"', '"type": "objekt"', "/type", "none of"),
        (
            "schemas/case.json",
            '"minLength"',
            '"minLenth"',
            "/properties/text/minLenth",
            "unknown keyword",
        ),
        ("prompts/consultation.ko.txt", "$question", "$qestion", "request", "unknown field"),
        ("prompts/consultation.ko.txt", "$data", "data", "data", "where the data goes"),
        ("prompts/consultation.en.txt", "[system]", "[systm]", "system", "missing"),
    ],
)
def test_every_fault_names_file_key_rule_and_remedy(
    pack: Path, file: str, old: str, new: str, key: str, rule: str
) -> None:
    path = pack / file
    text = path.read_text("utf-8")
    assert old in text
    at = text.rindex(old) if old.startswith('"additional') else text.index(old)
    path.write_text(text[:at] + new + text[at + len(old) :], "utf-8")
    problems = check_pack(pack)
    assert any(key in one.key and rule in one.rule and one.remedy for one in problems), problems
    with pytest.raises(InvalidInput) as caught:
        read_pack(pack)
    assert caught.value.hint


def test_a_pack_brings_no_code(pack: Path) -> None:
    (pack / "hook.py").write_text("print('x')")
    assert any("no code" in one.rule for one in check_pack(pack))


def test_all_problems_are_told_at_once(pack: Path) -> None:
    (pack / "prompts/consultation.ko.txt").unlink()
    (pack / "schemas/search.json").write_text("{")
    assert {one.file for one in check_pack(pack)} >= {
        "prompts/consultation.ko.txt",
        "schemas/search.json",
    }


def test_a_users_pack_stands_beside_the_shipped_and_may_take_their_place(
    pack: Path, tmp_path: Path
) -> None:
    text = (pack / "pack.toml").read_text("utf-8")
    (pack / "pack.toml").write_text(text.replace('version = "1"', 'version = "own"'), "utf-8")
    shelf = PackLibrary.open(tmp_path / "home", [str(tmp_path)])
    assert shelf.packs["legal"].version == "own"
    assert set(shelf.packs) == {"legal", "reviews"}


def test_a_broken_pack_keeps_the_shelf_from_opening(pack: Path, tmp_path: Path) -> None:
    (pack / "pack.toml").write_text("", "utf-8")
    with pytest.raises(InvalidInput):
        PackLibrary.open(tmp_path / "home", [str(pack)])


def test_the_worked_example_is_sound_and_the_guide_shows_it(root: Path) -> None:
    folder = root / "examples/packs/helpdesk"
    assert check_pack(folder) == []
    guide = (root / "docs/guides/packs.md").read_text("utf-8")
    for file in ("pack.toml", "schemas/triage.answer.json", "prompts/triage.en.txt"):
        assert (folder / file).read_text("utf-8").strip() in guide


async def test_the_worked_example_runs(container: Container, root: Path) -> None:
    text = "The invoice is wrong. Please send it again."
    folders = (str(root / "examples/packs"),)
    async with tasks_on(container, lambda r: filling(r, "send it again"), folders=folders) as on:
        found = await on[0].run("helpdesk.triage", {"text": text})
    [row] = found.result["requests"]
    [place, *_] = row["evidence"]
    assert text[place["start"] : place["end"]] == place["quote"]

"""The map is of this house: files, rooms and names on it exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "ondol"
MAP = (ROOT / "docs" / "architecture.md").read_text("utf-8")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

PATHS = sorted(set(re.findall(r"`([a-z_]+/[\w/.]+)`", MAP)))
ROWS = [line for line in MAP.partition("## Words")[2].splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize("path", PATHS)
def test_files_on_the_map_exist(path: str) -> None:
    assert (PACKAGE / path).exists() or (ROOT / path).exists()


def test_every_room_is_on_the_map() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == {room for room in rooms if re.search(rf"\b{room}\b", MAP.partition("##")[0])}


@pytest.mark.parametrize("row", ROWS)
def test_words_are_where_the_map_says(row: str) -> None:
    where = row.split("|")[3]
    places = re.findall(r"`([\w/]+\.py)`((?: `\w+`)+)", where)
    assert places
    for path, names in places:
        tree = ast.parse((PACKAGE / path).read_text("utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        assert set(re.findall(r"`(\w+)`", names)) <= defined


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:src|tests|docs)/[\w/.]+)`", GUIDE))))
def test_files_in_the_guide_exist(path: str) -> None:
    assert (ROOT / path).exists()

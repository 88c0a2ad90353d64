"""The rules of the house: one word for one thing, one noun a file, tests beside what they test."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "ondol"
TESTS = ROOT / "tests"

LONGEST_FILE = 600
"""Lines of a file that is one noun; most are under 300."""

LONGEST_FUNCTION = 60
"""Lines of a function without its docstring."""

SHARED_FOLDERS = {"api", "contract", "data", "docs", "e2e", "pins"}
"""Folders of tests that cut across rooms; every other one mirrors a folder of the package."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the name to the end, without the docstring."""
    first = node.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    prose = (first.end_lineno or 0) - first.lineno + 1 if told else 0
    return (node.end_lineno or 0) - node.lineno + 1 - prose


def test_every_class_name_stands_for_one_class() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_every_file_name_stands_for_one_file() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        if path.stem != "__init__":
            homes[path.stem].append(str(path.relative_to(PACKAGE)))
    assert {stem: places for stem, places in homes.items() if len(places) > 1} == {}


def test_no_file_holds_more_than_one_noun_needs() -> None:
    long = {
        str(path.relative_to(PACKAGE)): count
        for path in modules()
        if (count := len(path.read_text("utf-8").splitlines())) > LONGEST_FILE
    }
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{path.relative_to(PACKAGE)}: {node.name}": length(node)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and length(node) > LONGEST_FUNCTION
    }
    assert long == {}


def test_every_package_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.name)
def test_tests_lie_where_their_subject_lies(path: Path) -> None:
    place = path.relative_to(TESTS).parent
    shared = not place.parts or place.parts[0] in SHARED_FOLDERS
    assert shared or (PACKAGE / place).is_dir(), f"src/ondol has no folder {place}"

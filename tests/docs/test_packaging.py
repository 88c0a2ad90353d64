"""One version, complete locks, no index named, the checks counted right."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from scripts.check import STEPS, Counts, read_counts

import ondol

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("build", "base", "dev")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in requirements}


def pins(lock: str) -> dict[str, set[str]]:
    """Return the pinned versions by name; several where they differ by Python version."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / f"{lock}.lock").read_text("utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            found.setdefault(canonical(match[1]), set()).add(match[2])
    return found


def test_the_version_is_written_once_more_only() -> None:
    assert project()["project"]["version"] == ondol.__version__
    assert f"## {ondol.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_locks_hold_every_declared_package() -> None:
    declared = project()
    groups = declared["dependency-groups"]
    assert wanted(groups["build"]) <= set(pins("build"))
    assert wanted(declared["project"]["dependencies"]) | set(pins("build")) <= set(pins("base"))
    assert wanted(groups["dev"]) | set(pins("base")) <= set(pins("dev"))


def test_locks_agree_with_each_other() -> None:
    dev = pins("dev")
    for lock in ("build", "base"):
        for name, versions in pins(lock).items():
            assert versions <= dev[name], name


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_is_hashed_and_no_index_is_named(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text("utf-8")
    assert "://" not in text
    assert "--index" not in text
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("lock", LOCKS)
def test_torch_is_nowhere(lock: str) -> None:
    heavy = {"torch", "tensorflow", "jax", "transformers"}
    assert not heavy & set(pins(lock))
    assert not [name for name in pins(lock) if name.startswith("nvidia")]


def test_counts_come_from_the_reports() -> None:
    report = (
        '<testsuites><testsuite name="a" tests="7" failures="1" errors="1" skipped="2"/>'
        '<testsuite name="b" tests="3" failures="0" errors="0" skipped="0"/></testsuites>'
    )
    assert read_counts(report) == Counts(passed=6, failed=2, skipped=2)
    assert str(Counts(6, 2, 2)) == "6 passed, 2 failed, 2 skipped"
    assert str(Counts(1, 0) + Counts(2, 0)) == "3 passed, 0 failed"


def test_an_unknown_step_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/check.py", "nonsense"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert all(step in done.stderr for step in STEPS)

"""Run the project's checks, all of them or those named: ``python scripts/check.py [STEP…]``.

Every step runs even when an earlier one failed. The last line is the sum over all pytest runs,
``N passed, N failed``; the exit code is 0 only when every step passed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
PYTHON = sys.executable
EXTRAS_PYTHON = str(ROOT / ".venv-extras" / "bin" / "python")
NATIVE_HOME = ROOT / "build" / "native"
"""An Ondol home for the native build: in the user's own it would change what Ondol runs."""

TEST_MODELS = (
    "multilingual-e5-small",
    "ms-marco-minilm-l12-v2",
    "all-minilm-l6-v2",
    "smollm2-135m-instruct",
    "qwen2.5-coder-0.5b-instruct",
)
"""What the tests marked ``model`` and the wheel's smoke test load."""

UNIT = "not model and not gpu and not extras"
"""The tests that need nothing but the development packages."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Test cases of one or several pytest runs; an error counts as a failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        line = f"{self.passed} passed, {self.failed} failed"
        return f"{line}, {self.skipped} skipped" if self.skipped else line


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a step passed, and the tests it ran."""

    ok: bool
    counts: Counts = Counts()


def tool(*command: str) -> Outcome:
    """Run ``python -m command``; passed when it exits with 0."""
    return Outcome(_call(PYTHON, "-m", *command))


def pytest(name: str, expression: str, *more: str, python: str = PYTHON) -> Outcome:
    """Run the tests that ``expression`` selects and count them from the JUnit report."""
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    ok = _call(python, "-m", "pytest", "-rs", "-m", expression, f"--junitxml={report}", *more)
    if not report.exists():
        return Outcome(False, Counts(failed=1))
    counts = read_counts(report.read_text("utf-8"))
    return Outcome(ok and counts.passed > 0, counts)


def read_counts(report: str) -> Counts:
    """Return the counts of a JUnit XML report."""
    passed = failed = skipped = 0
    for suite in ElementTree.fromstring(report).iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        left = int(suite.get("skipped", 0))
        failed += bad
        skipped += left
        passed += int(suite.get("tests", 0)) - bad - left
    return Counts(passed, failed, skipped)


def model_tests() -> Outcome:
    """Fetch the models the tests need, then run the tests that load them."""
    if not _call(PYTHON, "-m", "ondol", "models", "pull", *TEST_MODELS):
        return Outcome(False)
    return pytest("model", "model and not native")


def extras() -> Outcome:
    """Run the tests that need torch and transformers, or llama.cpp built for this processor.

    The first run installs the one and compiles the other: about a quarter of an hour on two cores.
    """
    ready = (
        _call("sh", "scripts/extras.sh")
        and _call(PYTHON, "-m", "ondol", "models", "pull", *TEST_MODELS)
        and build_native()
    )
    if not ready:
        return Outcome(False)
    return pytest("extras", "extras or native", python=EXTRAS_PYTHON)


def build_native() -> bool:
    """Compile llama.cpp for this processor, once; without a compiler its tests skip, except in CI."""
    if shutil.which("c++") is None and os.environ.get("CI") != "true":
        say("no C++ compiler: the tests of the native llama.cpp will skip")
        return True
    return _call(PYTHON, "-m", "ondol", "models", "build", "llamacpp", ONDOL_HOME=str(NATIVE_HOME))


def wheel() -> Outcome:
    """Build the wheel and use it in an environment without the development tools."""
    if not _call(PYTHON, "-m", "ondol", "models", "pull", TEST_MODELS[0]):
        return Outcome(False)
    return Outcome(_call(PYTHON, "scripts/smoke_wheel.py"))


STEPS: Mapping[str, Callable[[], Outcome]] = {
    "format": lambda: tool("ruff", "format", "--check", "."),
    "lint": lambda: tool("ruff", "check", "."),
    "types": lambda: tool("mypy"),
    "imports": lambda: Outcome(_call(str(Path(PYTHON).with_name("lint-imports")), "--no-logo")),
    "deps": lambda: tool("deptry", "src"),
    "unit": lambda: pytest("unit", UNIT, "-n", "auto", "--dist", "loadfile"),
    "models": model_tests,
    "extras": extras,
    "wheel": wheel,
}


def run(names: list[str]) -> int:
    """Run the steps named and print how each went; return the exit code."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    total = Counts()
    lines: list[str] = []
    failed = False
    for name in names:
        say(f"==> {name}")
        started = time.monotonic()
        outcome = STEPS[name]()
        total += outcome.counts
        failed |= not outcome.ok
        verdict = "ok" if outcome.ok else "FAILED"
        lines.append(f"{verdict:7} {name:8} {time.monotonic() - started:6.1f} s")
    say("")
    for line in lines:
        say(line)
    if total != Counts():
        say(str(total))
    return 1 if failed else 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _call(*command: str, **variables: str) -> bool:
    environ = {**os.environ, "PYTHONUTF8": "1", **variables}
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    names = parser.parse_args().steps or list(STEPS)
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        parser.error(f"unknown step {unknown[0]!r}; known: {', '.join(STEPS)}")
    return run(names)


if __name__ == "__main__":
    sys.exit(main())

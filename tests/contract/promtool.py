"""The real ``promtool``, or a skip where it is not installed; with ``CI=true`` a failure."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def promtool(*arguments: str, stdin: bytes = b"") -> str:
    """Run promtool and return what it said; fails the test where it finds fault."""
    done = subprocess.run(
        [_binary(), *arguments],
        input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    said = done.stdout.decode()
    if done.returncode != 0:
        pytest.fail(f"promtool {' '.join(arguments)}: {said}")
    return said


def _binary() -> str:
    found = shutil.which("promtool")
    if found is not None:
        return found
    reason = "promtool is not installed: apt-get install --no-install-recommends prometheus"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

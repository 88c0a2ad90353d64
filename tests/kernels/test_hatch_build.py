"""The build hook: the package is built with or without a C compiler."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("hatchling", reason="the hook is part of the build tools")


def hook(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", root / "hatch_build.py")
    if spec is None or spec.loader is None:
        raise AssertionError("hatch_build.py is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of what the hook compiles, so that the real library stays."""
    target = tmp_path / "src/ondol/kernels/native"
    target.mkdir(parents=True)
    for path in (root / "src/ondol/kernels/native").glob("*.[ch]"):
        shutil.copy(path, target)
    return tmp_path


def test_a_compiler_that_fails_leaves_no_library_and_says_why(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "false")
    old = project / "src/ondol/kernels/native/encoder.so"
    old.write_bytes(b"an older one")
    assert "false failed" in hook(root).compile_kernels(project)
    assert not old.exists()


def test_it_can_be_left_out(root: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDOL_BUILD_NATIVE", "0")
    assert "ONDOL_BUILD_NATIVE" in hook(root).compile_kernels(project)


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_the_kernels_compile_without_a_warning(
    root: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "cc -Wall -Wextra -Werror")
    assert hook(root).compile_kernels(project) == ""
    assert (project / "src/ondol/kernels/native/encoder.so").stat().st_size > 10_000

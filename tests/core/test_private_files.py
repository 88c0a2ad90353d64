"""What the home holds is for its owner alone, whoever makes it first."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.store.builders import filled

from ondol.core.private_files import private_folder
from ondol.jobs.runner import RunnerLock
from ondol.models.manifest import locked
from ondol.models.profile import Profile, write_profile


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def store(home: Path) -> None:
    filled(home).close()


def model_lock(home: Path) -> None:
    with locked(home / "models" / "a.lock"):
        pass


def job_lock(home: Path) -> None:
    lock = RunnerLock(home)
    lock.take()
    lock.release()


def profile(home: Path) -> None:
    write_profile(home, Profile())


@pytest.mark.parametrize("first", [store, model_lock, job_lock, profile])
def test_the_home_is_private_whoever_makes_it(
    tmp_path: Path, first: Callable[[Path], None]
) -> None:
    home = tmp_path / "a" / "home"
    first(home)
    filled(home).close()

    for folder in (home.parent, home, *(p for p in home.rglob("*") if p.is_dir())):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert stat.S_IMODE((home / "ondol.db").stat().st_mode) == 0o600


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    private_folder(shared / "x")

    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    assert stat.S_IMODE((shared / "x").stat().st_mode) == 0o700

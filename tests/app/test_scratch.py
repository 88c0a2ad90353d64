"""Scratch folders are removed however the work ends, those of killed processes by the next."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ondol.app.scratch import PREFIX, scratch_folder
from ondol.core.errors import StoreError


def test_a_folder_is_removed_with_all_in_it_however_the_work_ends(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with scratch_folder(home) as folder:
        assert folder.parent == home
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x", "utf-8")
    assert list(home.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), scratch_folder(home):
        raise KeyboardInterrupt
    assert list(home.iterdir()) == []


def test_the_next_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / "ondol.db").write_text("x", "utf-8")
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(mine)
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert first != second
        assert first.is_dir(), "its process lives"
        assert not left.exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine", f"{PREFIX}link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="no folder can be made"), scratch_folder(home):
        raise AssertionError

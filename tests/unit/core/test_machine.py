from __future__ import annotations

from pathlib import Path

import pytest

from ondol.core import machine


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8)]
)
def test_the_cgroup_quota_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.usable_cores(cgroup=tmp_path) == cores


def test_cgroup_v1_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("300000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert machine.usable_cores(cgroup=tmp_path) == 3


def test_the_memory_limit_bounds_the_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("400000")
    assert machine.memory_bytes(cgroup=tmp_path) == (1_000_000, 600_000)


def test_this_machine_can_be_described() -> None:
    here = machine.describe()
    assert here.cores >= 1
    assert 0 < here.free_bytes <= here.memory_bytes
    assert here.cpu

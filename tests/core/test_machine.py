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


def meminfo(folder: Path, *, total_kb: int = 8_000_000, free_kb: int = 5_000_000) -> Path:
    path = folder / "meminfo"
    path.write_text(f"MemTotal: {total_kb} kB\nMemFree: 1 kB\nMemAvailable: {free_kb} kB\n")
    return path


def cgroup(folder: Path, *, limit: str, used: int, inactive_file: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive_file}\nslab 2\n")


def test_the_memory_limit_bounds_the_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("400000")
    nowhere = tmp_path / "none"
    assert machine.memory_bytes(cgroup=tmp_path, own=nowhere) == (1_000_000, 600_000)


def test_file_cache_that_can_be_reclaimed_is_free(tmp_path: Path) -> None:
    """Weights that are read or mapped fill the cache; they must not look like a full machine."""
    cgroup(tmp_path, limit="1000000", used=900_000, inactive_file=700_000)
    found = machine.memory_bytes(cgroup=tmp_path, own=tmp_path / "none")
    assert found == (1_000_000, 800_000)


def test_the_tightest_of_our_nested_cgroups_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/system.slice/ondol.service\n")
    root = tmp_path / "cgroup"
    cgroup(root / "system.slice", limit="4000000", used=3_900_000)
    cgroup(root / "system.slice/ondol.service", limit="3000000", used=1_000_000)
    found = machine.memory_bytes(cgroup=root, own=own, meminfo=meminfo(tmp_path))
    assert found == (3_000_000, 100_000)


def test_cgroup_v1_memory_is_read_too(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/other\n4:memory:/docker/abc\n")
    folder = tmp_path / "cgroup/memory/docker/abc"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("2000000")
    (folder / "memory.usage_in_bytes").write_text("1500000")
    (folder / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 300000\n")
    found = machine.memory_bytes(cgroup=tmp_path / "cgroup", own=own, meminfo=meminfo(tmp_path))
    assert found == (2_000_000, 800_000)


def test_without_a_limit_the_machine_s_own_memory_counts(tmp_path: Path) -> None:
    cgroup(tmp_path / "cgroup", limit="max", used=10**12)
    found = machine.memory_bytes(
        cgroup=tmp_path / "cgroup", own=tmp_path / "none", meminfo=meminfo(tmp_path)
    )
    assert found == (8_000_000 * 1024, 5_000_000 * 1024)


def test_this_machine_can_be_described() -> None:
    here = machine.describe()
    assert here.cores >= 1
    assert 0 < here.free_bytes <= here.memory_bytes
    assert 0 < machine.free_bytes() <= here.memory_bytes
    assert here.cpu


def test_the_tightest_quota_of_our_nested_cgroups_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/system.slice/ondol.service\n")
    root = tmp_path / "cgroup"
    for place, quota, used in (("", "max 100000", 9), ("ondol.service", "150000 100000", 7)):
        folder = root / "system.slice" / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(quota)
        (folder / "cpu.stat").write_text(f"usage_usec {used * 10**6}\nuser_usec 1\n")
    assert machine.cpu_quota(cgroup=root, own=own) == machine.CpuQuota(1.5, 7.0)


def test_a_cgroup_v1_quota_has_its_time_beside_it(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/docker/abc\n4:memory:/other\n")
    folder = tmp_path / "cgroup/cpu/docker/abc"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("200000")
    (folder / "cpu.cfs_period_us").write_text("100000")
    root = tmp_path / "cgroup"
    assert machine.cpu_quota(cgroup=root, own=own) == machine.CpuQuota(2.0, None)
    apart = root / "cpuacct/docker/abc"
    apart.mkdir(parents=True)
    (apart / "cpuacct.usage").write_text("3000000000")
    assert machine.cpu_quota(cgroup=root, own=own) == machine.CpuQuota(2.0, 3.0)


def test_without_a_quota_there_is_none(tmp_path: Path) -> None:
    assert machine.cpu_quota(cgroup=tmp_path, own=tmp_path / "none") is None

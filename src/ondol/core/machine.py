"""What this machine lets us use: cores by affinity and cgroup, memory by cgroup.

The host's core count is wrong inside a container: a quota of 2 CPUs on a 64-core host must give
two threads. Sources: cgroup v2 ``cpu.max`` and ``memory.max``, v1 ``cpu.cfs_quota_us``.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """Usable cores, memory in bytes (total and free now), and the CPU's name."""

    cores: int
    memory_bytes: int
    free_bytes: int
    cpu: str


def usable_cores(*, cgroup: Path = _CGROUP) -> int:
    """Return how many threads may run at once here: the least of affinity and cgroup quota."""
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        affinity = os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    if quota is None:
        return max(1, affinity)
    return max(1, min(affinity, round(quota)))


def memory_bytes(*, cgroup: Path = _CGROUP) -> tuple[int, int]:
    """Return (total, available) bytes, the tighter of the machine's and the cgroup's."""
    total, available = _meminfo()
    limit = _read_int(cgroup / "memory.max") or _read_int(cgroup / "memory/memory.limit_in_bytes")
    if limit is not None and limit < total:
        used = (
            _read_int(cgroup / "memory.current")
            or _read_int(cgroup / "memory/memory.usage_in_bytes")
            or 0
        )
        return limit, max(0, min(available, limit - used))
    return total, available


def describe() -> Machine:
    """Return this machine as it is now."""
    total, available = memory_bytes()
    return Machine(cores=usable_cores(), memory_bytes=total, free_bytes=available, cpu=_cpu_name())


def _cpu_quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us = _read_int(cgroup / "cpu/cpu.cfs_quota_us")
    period_us = _read_int(cgroup / "cpu/cpu.cfs_period_us")
    if quota_us is None or period_us is None or quota_us <= 0 or period_us <= 0:
        return None
    return quota_us / period_us


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _meminfo() -> tuple[int, int]:
    try:
        fields = dict(
            line.split(":", 1)
            for line in Path("/proc/meminfo").read_text().splitlines()
            if ":" in line
        )
        total = int(fields["MemTotal"].split()[0]) * 1024
        return total, int(fields.get("MemAvailable", fields["MemFree"]).split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        return total, total


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

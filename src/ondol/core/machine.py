"""What this machine lets us use: cores by affinity and cgroup, memory by cgroup.

The host's core count is wrong inside a container: a quota of 2 CPUs on a 64-core host must give
two threads. What a process can still get is its cgroup's limit less what cannot be reclaimed.
Sources: cgroup v2 ``cpu.max``, ``memory.max`` and ``memory.stat``, v1 ``cpu.cfs_quota_us``
and ``cpuacct.usage``.

One look at how busy this machine is, and with what: shares, never absolute figures.

Telemetry takes it, the resource monitor and the watchdog judge it. Every field may be unknown.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
_CPU_LIMITS = ("cpu.max", "cpu.cfs_quota_us")


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """The tightest CPU quota over this process, in cores, and the cgroup that has it.

    ``used_seconds`` is the CPU time of everything in that cgroup so far; ``None`` where untold.
    """

    cores: float
    used_seconds: float | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Usable cores, memory in bytes (total and free now), and the CPU's name."""

    cores: int
    memory_bytes: int
    free_bytes: int
    cpu: str


def usable_cores(*, cgroup: Path = _CGROUP, own: Path = _OWN_CGROUP) -> int:
    """Return how many threads may run at once here: the least of affinity and cgroup quota."""
    affinity = len(own_cpus())
    quota = cpu_quota(cgroup=cgroup, own=own)
    if quota is None:
        return max(1, affinity)
    return max(1, min(affinity, round(quota.cores)))


def own_cpus() -> frozenset[int]:
    """Return the numbers of the processors this process may run on."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return frozenset(range(os.cpu_count() or 1))


def cpu_quota(*, cgroup: Path = _CGROUP, own: Path = _OWN_CGROUP) -> CpuQuota | None:
    """Return the tightest CPU quota of our cgroups, or ``None`` where there is none."""
    found: CpuQuota | None = None
    for folder in _own_cgroups(cgroup, own, "cpu", _CPU_LIMITS):
        cores = _cores_of(folder)
        if cores is not None and (found is None or cores < found.cores):
            found = CpuQuota(cores, _cpu_seconds(folder, cgroup=cgroup))
    return found


def memory_bytes(
    *, cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO, own: Path = _OWN_CGROUP
) -> tuple[int, int]:
    """Return (total, available) bytes: the tightest of the machine's and those of our cgroups."""
    total, available = _meminfo(meminfo)
    for folder in _own_cgroups(cgroup, own, "memory", _MEMORY_LIMITS):
        limit = _first_int(*(folder / name for name in _MEMORY_LIMITS))
        if limit is None or limit >= total:
            continue
        used = _first_int(folder / "memory.current", folder / "memory.usage_in_bytes") or 0
        used -= min(used, _reclaimable(folder / "memory.stat"))
        total, available = limit, max(0, min(available, limit - used))
    return total, available


def free_bytes() -> int:
    """Return the bytes this process may still take; some tens of microseconds."""
    return memory_bytes()[1]


def describe() -> Machine:
    """Return this machine as it is now."""
    total, available = memory_bytes()
    return Machine(cores=usable_cores(), memory_bytes=total, free_bytes=available, cpu=_cpu_name())


def _cores_of(folder: Path) -> float | None:
    """Return the quota of one cgroup in cores (v2 or v1), or ``None`` where it has none."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us = _read_int(folder / "cpu.cfs_quota_us")
    period_us = _read_int(folder / "cpu.cfs_period_us")
    if quota_us is None or period_us is None or quota_us <= 0 or period_us <= 0:
        return None
    return quota_us / period_us


def _cpu_seconds(folder: Path, *, cgroup: Path) -> float | None:
    """Return the CPU time of one cgroup: v2 ``cpu.stat``, v1 ``cpuacct.usage`` (may lie apart)."""
    try:
        fields = dict(line.split(" ", 1) for line in (folder / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6
    except (OSError, KeyError, ValueError):
        pass
    apart = cgroup / "cpuacct"
    with suppress(ValueError):
        apart /= folder.relative_to(cgroup / "cpu")
    used = _first_int(folder / "cpuacct.usage", apart / "cpuacct.usage")
    return None if used is None else used / 1e9


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _first_int(*paths: Path) -> int | None:
    """Return the first of ``paths`` that holds a number."""
    found = (_read_int(path) for path in paths)
    return next((value for value in found if value is not None), None)


@cache
def _own_cgroups(
    root: Path, own: Path, controller: str, limits: tuple[str, ...]
) -> tuple[Path, ...]:
    """Return the folders whose limits bind this process, parents first: its cgroups of one kind."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    places = {Path()}
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            place = Path(name.lstrip("/."))
            places.update((place, *place.parents))
    folders = (base / place for place in sorted(places) for base in (root, root / controller))
    return tuple(folder for folder in folders if any((folder / name).exists() for name in limits))


def _reclaimable(stat: Path) -> int:
    """Return the bytes of file cache that the kernel drops first: counted as used, yet to be had."""
    try:
        lines = stat.read_text().splitlines()
        fields = dict(line.split(" ", 1) for line in lines if " " in line)
        return int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
    except (OSError, ValueError):
        return 0


def _meminfo(path: Path) -> tuple[int, int]:
    try:
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
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


@dataclass(frozen=True, slots=True)
class MachineUsage:
    """Shares from 0 to 1; ``None`` where the machine does not tell (or not yet).

    ``memory`` is what cannot be had any more, of the cgroup's limit or the machine's memory.
    ``cpu`` and ``cpu_own`` are shares of the cores this process may use since the look before: busy
    with anything, and with this service's process tree. ``cpu_lost`` is the share of the processor
    time this service wanted meanwhile that others had instead.
    ``gpu`` is the busiest GPU's utilisation and ``gpu_memory`` the fullest one's memory, by anyone;
    ``gpu_others`` the memory that others hold of the GPUs this service uses.
    """

    memory: float | None = None
    cpu: float | None = None
    cpu_own: float | None = None
    cpu_lost: float | None = None
    gpu: float | None = None
    gpu_memory: float | None = None
    gpu_others: float | None = None

"""Takes samples of this machine: processor, memory, GPU, and what of them is this service's own.

Shares are of what this process may use: its affinity and cgroup quota, its cgroup's memory. Reads a
few small files of ``/proc`` and the GPU's driver; blocking, so call it off the event loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ondol.core.clock import Clock, SystemClock
from ondol.core.machine import CpuQuota, MachineUsage, cpu_quota, memory_bytes, own_cpus
from ondol.telemetry.gpu import Gpus, GpuSample
from ondol.telemetry.readings import PROC, cpu_seconds, tree, waiting_seconds

_WORTH_ASKING = 0.5
"""Share of our cores: who wants less than that of a busy machine is not short of it."""


@dataclass(frozen=True, slots=True)
class _CpuTimes:
    """Seconds so far: idle on our processors; had and waited for by us; spent in our cgroup."""

    at: float
    cores: int
    idle: float | None
    own: float | None
    waited: float | None
    quota: CpuQuota | None


class UsageReader:
    """Reads ``MachineUsage``; processor shares cover the time since the read before, so the first has none.

    ``pid`` is the root of the service's process tree: this process, another's, or ``None`` when it
    is not known; then nothing can be said of what is the service's own. One thread at a time.
    """

    def __init__(
        self,
        *,
        pid: Callable[[], int | None] = os.getpid,
        gpus: Gpus | None = None,
        clock: Clock | None = None,
        proc: Path = PROC,
        quota: Callable[[], CpuQuota | None] = cpu_quota,
        cpus: Callable[[], frozenset[int]] = own_cpus,
        memory: Callable[[], tuple[int, int]] = memory_bytes,
    ) -> None:
        self._pid = pid
        self._gpus = gpus
        self._clock = clock or SystemClock()
        self._proc = proc
        self._quota = quota
        self._cpus = cpus
        self._memory = memory
        self._before: _CpuTimes | None = None

    def read(self) -> MachineUsage:
        """Take one sample; some milliseconds."""
        pid = self._pid()
        own = frozenset() if pid is None else tree(pid, proc=self._proc)
        now = self._times(own)
        before, self._before = self._before, now
        cpu, mine, lost = (None, None, None) if before is None else _shares(before, now)
        total, available = self._memory()
        gpus = [] if self._gpus is None else self._gpus.sample()
        return MachineUsage(
            memory=1 - available / total if total else None,
            cpu=cpu,
            cpu_own=mine,
            cpu_lost=lost,
            gpu=_most(gpus, lambda gpu: gpu.busy),
            gpu_memory=_most(gpus, lambda gpu: gpu.memory),
            gpu_others=_most(gpus, lambda gpu: gpu.others(own)),
        )

    def _times(self, own: frozenset[int]) -> _CpuTimes:
        cpus = self._cpus()
        return _CpuTimes(
            at=self._clock.monotonic(),
            cores=len(cpus),
            idle=_idle_seconds(self._proc / "stat", cpus),
            own=cpu_seconds(own, proc=self._proc),
            waited=waiting_seconds(own, proc=self._proc),
            quota=self._quota(),
        )


def _shares(before: _CpuTimes, now: _CpuTimes) -> tuple[float | None, float | None, float | None]:
    """Return (busy, ours, lost to others) between two reads; see ``MachineUsage``.

    Busy is what we had and all that others had of our cores: programs, neighbours in our cgroup, a
    host's other guests. Lost is what we waited for, as far as others had it. That others are busy
    while we want nothing loses nothing, nor does our own threads' waiting for each other.
    """
    seconds = now.at - before.at
    idle, own = _grown(before.idle, now.idle), _grown(before.own, now.own)
    if seconds <= 0 or idle is None:
        return None, None, None
    cores, free = float(now.cores), idle / seconds
    if now.quota is not None and now.quota.cores < cores:
        used = None if before.quota is None else before.quota.used_seconds
        spent = _grown(used, now.quota.used_seconds)
        cores = now.quota.cores
        free = min(free, cores - (0.0 if spent is None else spent / seconds))
    busy = _share(cores - free, cores)
    if own is None:
        return busy, None, None
    had = own / seconds
    waited = _grown(before.waited, now.waited)
    if waited is None:
        return busy, _share(had, cores), None
    lost = min(waited / seconds, max(0.0, cores - free - had))
    return busy, _share(had, cores), _share(lost, max(had + lost, cores * _WORTH_ASKING))


def _idle_seconds(stat: Path, cpus: frozenset[int]) -> float | None:
    """Return the idle time of ``cpus`` so far (idle and iowait of proc_stat(5)).

    Time stolen by the host's other guests is not idle, so it counts as lost.
    """
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    names = {f"cpu{number}" for number in cpus}
    rows = [line.split() for line in lines if line.partition(" ")[0] in names]
    if not rows:
        return None
    try:
        return sum(int(row[4]) + int(row[5]) for row in rows) / os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError):
        return None


def _grown(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else max(0.0, now - before)


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def _most(gpus: list[GpuSample], of: Callable[[GpuSample], float | None]) -> float | None:
    return max((share for gpu in gpus if (share := of(gpu)) is not None), default=None)

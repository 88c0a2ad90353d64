"""The CPU time of a process and everything it started, had and waited for, from ``/proc`` (Linux).

A generator runs as a child, so a service is a tree of processes. Times of children that ended are
counted where their parent waited for them: the sum over the tree goes on where they stopped.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def tree(root: int, *, proc: Path = PROC) -> frozenset[int]:
    """Return ``root`` and its descendants; empty where ``root`` is not there."""
    parents = _parents(proc)
    if root not in parents:
        return frozenset()
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found, due = {root}, [root]
    while due:
        for child in children.get(due.pop(), ()):
            if child not in found:
                found.add(child)
                due.append(child)
    return frozenset(found)


def cpu_seconds(pids: frozenset[int], *, proc: Path = PROC) -> float | None:
    """Return the CPU time of ``pids`` and of the children they waited for; ``None`` if none is there.

    Fields utime, stime, cutime and cstime of proc_pid_stat(5).
    """
    ticks = [sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(proc, pid))]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def waiting_seconds(pids: frozenset[int], *, proc: Path = PROC) -> float | None:
    """Return how long the threads of ``pids`` that still live could have run and had no processor.

    The second field of each thread's schedstat (Linux, Documentation/scheduler/sched-stats); ``None``
    where the kernel does not keep it.
    """
    waits = [wait for pid in pids for wait in _waits(proc / str(pid) / "task")]
    return sum(waits) / 1e9 if waits else None


def _waits(threads: Path) -> list[int]:
    waits = []
    with suppress(OSError):
        for name in os.listdir(threads):
            with suppress(OSError, ValueError, IndexError):
                waits.append(int((threads / name / "schedstat").read_text().split()[1]))
    return waits


def _parents(proc: Path) -> dict[int, int]:
    try:
        pids = [int(entry) for entry in os.listdir(proc) if entry.isdigit()]
    except OSError:
        return {}
    return {pid: int(fields[1]) for pid in pids if (fields := _stat(proc, pid))}


def _stat(proc: Path, pid: int) -> list[str]:
    """Return the fields after the command's name, which may itself hold blanks and brackets."""
    try:
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return fields if len(fields) > 14 else []

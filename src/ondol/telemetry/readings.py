"""What is looked up when ``/metrics`` is asked for: lanes, goodput, usage, the recorder, the process.

Where each figure comes from is set from outside (``ReadingSources``), any time; what is not set is not
shown, except goodput. A source that fails is logged and left out of that answer.

The rows of the metrics table about jobs, and how they are looked up.

Looking reads the store: it is done in the thread that renders, never on the event loop. Attempts are
counted since the runner's start; the rest is as it stands. Where no runner is, nothing is shown.

The CPU time of a process and everything it started, had and waited for, from ``/proc`` (Linux).

A generator runs as a child, so a service is a tree of processes. Times of children that ended are
counted where their parent waited for them: the sum over the tree goes on where they stopped.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ondol.core.machine import MachineUsage
from ondol.core.process import resident_bytes
from ondol.telemetry.goodput import LaneFigures
from ondol.telemetry.recorder import RecorderStats
from ondol.telemetry.series import STATE, Series

JOBS: tuple[Series, ...] = (
    Series(
        "ondol_job_items",
        "gauge",
        "Items of jobs that have not ended, by state: queued, leased, done, failed.",
        ("state",),
        read=True,
    ),
    Series(
        "ondol_job_oldest_queued_seconds",
        "gauge",
        "Time since the oldest job with an item in the queue was handed in; 0 where none waits.",
        read=True,
    ),
    Series(
        "ondol_job_attempts",
        "counter",
        "Attempts at items of jobs: done, failed for good, or retried later.",
        ("task", "outcome"),
        read=True,
    ),
    Series(
        "ondol_job_runner",
        "gauge",
        "1 where it is so: working (this process works the jobs), paused (after a refusal), shed.",
        ("flag",),
        read=True,
    ),
)


@dataclass(frozen=True, slots=True)
class JobFigures:
    """Jobs now. ``items`` by state, ``attempts`` by task and outcome, ``flags`` of the runner."""

    items: Mapping[str, int]
    oldest_seconds: float
    attempts: Mapping[tuple[str, str], int]
    flags: Mapping[str, bool]


def job_families(figures: JobFigures | None) -> Iterator[Metric]:
    """Yield the families of ``JOBS``, empty where there are no figures."""
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    families = {one.name: kinds[one.kind](one.name, one.help, labels=one.labels) for one in JOBS}
    if figures is not None:
        for state, count in figures.items.items():
            families["ondol_job_items"].add_metric([state], count)
        families["ondol_job_oldest_queued_seconds"].add_metric([], figures.oldest_seconds)
        for labels, count in figures.attempts.items():
            families["ondol_job_attempts"].add_metric(list(labels), count)
        for flag, so in figures.flags.items():
            families["ondol_job_runner"].add_metric([flag], so)
    yield from families.values()


_log = logging.getLogger("ondol.metrics")
_T = TypeVar("_T")
_STARTED = time.time()


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """One lane now: requests waiting and running, the limits of both, and a newcomer's wait."""

    depth: int
    running: int
    queue_limit: int
    running_limit: int
    wait_seconds: float = 0.0


@dataclass
class ReadingSources:
    """Where readings come from; each is called in the thread that looks, ``jobs`` in the one that renders."""

    lanes: Callable[[], Mapping[str, LaneLoad]] | None = None
    goodput: Callable[[], Mapping[str, Mapping[str, LaneFigures]]] | None = None
    usage: Callable[[], MachineUsage] | None = None
    recorder: Callable[[], RecorderStats] | None = None
    jobs: Callable[[], JobFigures | None] | None = None


class Readings:
    """The ``read`` rows of the table."""

    def __init__(self, sources: ReadingSources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Ask every source and yield the families, those without a source empty."""
        families = _families()
        sources = self._sources
        _lanes(families, _ask(sources.lanes))
        _goodput(families, _ask(sources.goodput))
        _usage(families, _ask(sources.usage))
        _recorder(families, _ask(sources.recorder))
        _process(families)
        yield from families.values()

    def stored(self) -> Iterator[Metric]:
        """Ask those sources that read the disk, in any thread."""
        yield from job_families(_ask(self._sources.jobs))


def _ask(source: Callable[[], _T] | None) -> _T | None:
    if source is None:
        return None
    try:
        return source()
    except Exception:
        _log.exception("a metric could not be read")
        return None


def _families() -> dict[str, GaugeMetricFamily | CounterMetricFamily]:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    return {s.name: kinds[s.kind](s.name, s.help, labels=s.labels) for s in STATE}


_Families = Mapping[str, GaugeMetricFamily | CounterMetricFamily]


def _lanes(families: _Families, lanes: Mapping[str, LaneLoad] | None) -> None:
    for lane, load in (lanes or {}).items():
        for key, value in asdict(load).items():
            families[f"ondol_lane_{key}"].add_metric([lane], value)


def _goodput(families: _Families, lanes: Mapping[str, Mapping[str, LaneFigures]] | None) -> None:
    for lane, windows in (lanes or {}).items():
        for window, figures in windows.items():
            labels = [lane, window]
            families["ondol_throughput_rps"].add_metric(labels, figures.throughput_rps)
            families["ondol_goodput_rps"].add_metric(labels, figures.goodput_rps)
            for of, share in (
                ("offered", figures.attainment_offered),
                ("admitted", figures.attainment_admitted),
            ):
                families["ondol_attainment_ratio"].add_metric(
                    [*labels, of], float("nan") if share is None else share
                )


def _usage(families: _Families, usage: MachineUsage | None) -> None:
    if usage is not None:
        for resource, share in asdict(usage).items():
            if share is not None:
                families["ondol_resource_usage_ratio"].add_metric([resource], share)


def _recorder(families: _Families, stats: RecorderStats | None) -> None:
    if stats is not None:
        for result in ("written", "dropped", "failed"):
            families["ondol_recorder_rows"].add_metric([result], getattr(stats, result))
        families["ondol_recorder_waiting"].add_metric([], stats.waiting)


def _process(families: _Families) -> None:
    resident = resident_bytes()
    families["ondol_process_resident_bytes"].add_metric(
        [], float("nan") if resident is None else resident
    )
    families["ondol_process_cpu_seconds"].add_metric([], time.process_time())
    families["ondol_process_start_time_seconds"].add_metric([], _STARTED)


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

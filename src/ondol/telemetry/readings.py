"""What is looked up when ``/metrics`` is asked for: lanes, goodput, usage, the recorder, the process.

Where each figure comes from is set from outside (``Sources``), any time; what is not set is not
shown, except goodput. A source that fails is logged and left out of that answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ondol.core.memory import resident_bytes
from ondol.core.usage import Usage
from ondol.telemetry.goodput import LaneFigures
from ondol.telemetry.job_readings import JobFigures, job_families
from ondol.telemetry.recorder import RecorderStats
from ondol.telemetry.series import STATE

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
class Sources:
    """Where readings come from; each is called in the thread that looks, ``jobs`` in the one that renders."""

    lanes: Callable[[], Mapping[str, LaneLoad]] | None = None
    goodput: Callable[[], Mapping[str, Mapping[str, LaneFigures]]] | None = None
    usage: Callable[[], Usage] | None = None
    recorder: Callable[[], RecorderStats] | None = None
    jobs: Callable[[], JobFigures | None] | None = None


class Readings:
    """The ``read`` rows of the table."""

    def __init__(self, sources: Sources) -> None:
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


def _usage(families: _Families, usage: Usage | None) -> None:
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

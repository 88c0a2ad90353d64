"""The rows of the metrics table about jobs, and how they are looked up.

Looking reads the store: it is done in the thread that renders, never on the event loop. Attempts are
counted since the runner's start; the rest is as it stands. Where no runner is, nothing is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ondol.telemetry.series import Series

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

"""Measure what telemetry costs those it watches: one event, and work that emits events.

    python benchmarks/telemetry.py [--events 1000] [--rounds 10] [--units 200]

``per_event_us`` is the caller's time in one ``observe`` of a finished generation, for each listener
alone and for what a server has; the recorder writes to a real ``ondol.db`` meanwhile. ``work`` runs
units of pure computation of about 5 ms with one event after each, as a server of 200 requests a
second would, so that the recorder's thread and its disk writes compete with it. The ratio is of the
whole process's CPU time until the last row is on disk (``cpu``) and of the wall clock of the work
(``wall``), each to the named baseline ``NullObserver`` of the same round. Rounds alternate; medians with the middle
half. Nothing is random. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from common import report, table

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.core.events import NullObserver, Observer, Observers, RequestFinished, Timing
from ondol.telemetry.goodput import Goodput
from ondol.telemetry.logs import RequestLog
from ondol.telemetry.metric_rows import MetricStore
from ondol.telemetry.metrics import Metrics
from ondol.telemetry.readings import ReadingSources
from ondol.telemetry.recorder import Recorder, RecorderStats, Retention

T = TypeVar("T")
BASELINE = "NullObserver"
EVENT = RequestFinished(
    "chat", "qwen2.5-coder-0.5b", "ok",
    Timing(
        request_id="0f3c2a7e9b1d4c55", queue_ms=12.5, prefill_ms=310.2, decode_ms=1840.7,
        inference_ms=2150.9, ttft_ms=331.4, tpot_ms=28.7, itl_p50_ms=27.9, itl_p99_ms=61.3,
        total_ms=2170.2,
    ),
    tokens_in=812, tokens_out=64, tokens_cached=640, form="llamacpp:q4_k_m", generated=True,
    deadline_ms=2000.0, predicted_ms=318.0,
)  # fmt: skip


@contextlib.contextmanager
def listeners(home: Path) -> Iterator[tuple[dict[str, Observer], Recorder]]:
    """Yield every listener by name, the recorder's table being a real file under ``home``."""
    clock = SystemClock()
    store = open_documents(home, clock=clock)
    recorder = Recorder(
        MetricStore(store.database).insert, clock=clock, trim=MetricStore(store.database).trim,
        retention=Retention(30, 200_000), limit_rows=1_000_000,
    )  # fmt: skip
    goodput = Goodput(clock=clock)
    metrics = Metrics(ReadingSources(goodput=goodput.snapshot))
    found: dict[str, Observer] = {
        BASELINE: NullObserver(),
        "Recorder": recorder,
        "Goodput": goodput,
        "Metrics": metrics,
        "RequestLog": RequestLog(),
    }
    found["all of them"] = Observers(metrics, goodput, RequestLog(), recorder)
    try:
        yield found, recorder
    finally:
        recorder.close()
        store.close()


def events(observer: Observer, *, count: int) -> float:
    """Return the microseconds of one event."""
    observe = observer.observe
    started = time.perf_counter()
    for _ in range(count):
        observe(EVENT)
    return (time.perf_counter() - started) / count * 1e6


def work(observer: Observer, *, units: int, size: int, recorder: Recorder) -> tuple[float, float]:
    """Return the CPU and wall seconds of ``units`` computations with an event after each."""
    cpu, started = time.process_time(), time.perf_counter()
    for _ in range(units):
        total = 0
        for number in range(size):
            total += number * number
        observer.observe(EVENT)
    wall = time.perf_counter() - started
    settle(recorder)
    return time.process_time() - cpu, wall


def unit_size(recorder: Recorder) -> int:
    """Return the loop length that takes about 5 ms here."""
    size, null = 10_000, NullObserver()
    took = min(work(null, units=20, size=size, recorder=recorder)[0] / 20 for _ in range(5))
    return max(100, round(size * 5e-3 / took))


def alternate(
    found: Mapping[str, Observer], measure: Callable[[Observer], T], *, rounds: int
) -> dict[str, list[T]]:
    """Measure every listener in each round, in turning order; the first round warms up."""
    times: dict[str, list[T]] = {name: [] for name in found}
    names = list(found)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            took = measure(found[name])
            if number:
                times[name].append(took)
    return times


def settle(recorder: Recorder) -> RecorderStats:
    """Wait until everything is written, so that no round pays for another's rows."""
    while recorder.stats().waiting:
        time.sleep(0.05)
    return recorder.stats()


def middle(values: list[float]) -> list[float]:
    """Return median, lower and upper quartile."""
    lower, median, upper = statistics.quantiles(values, n=4)
    return [round(value, 3) for value in (median, lower, upper)]


def _ratio(ratios: Mapping[str, Mapping[str, list[float]]], name: str) -> str:
    return f"{ratios[name]['cpu'][0]:.3f}" if name in ratios else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--units", type=int, default=200)
    options = parser.parse_args()
    null = logging.StreamHandler(open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    logging.getLogger("ondol").handlers[:] = [null]
    logging.getLogger("ondol").setLevel(logging.INFO)
    gc.collect()
    with tempfile.TemporaryDirectory() as folder, listeners(Path(folder)) as (found, recorder):
        per_event = alternate(
            found, lambda o: events(o, count=options.events), rounds=options.rounds
        )
        settle(recorder)
        size = unit_size(recorder)
        compared = {name: found[name] for name in (BASELINE, "Recorder", "all of them")}
        seconds = alternate(
            compared,
            lambda o: work(o, units=options.units, size=size, recorder=recorder),
            rounds=options.rounds,
        )
        stats = settle(recorder)
    ratios = {
        name: {
            clock: middle(
                [took[n] / base[n] for took, base in zip(times, seconds[BASELINE], strict=True)]
            )
            for n, clock in enumerate(("cpu", "wall"))
        }
        for name, times in seconds.items()
        if name != BASELINE
    }
    costs = {name: middle(times) for name, times in per_event.items()}
    table(
        ("listener", "µs per event", "middle half", f"CPU of the work, ratio to {BASELINE}"),
        [
            (name, cost[0], f"{cost[1]} to {cost[2]}", _ratio(ratios, name))
            for name, cost in costs.items()
        ],
    )
    report(
        {
            "per_event_us": costs,
            "work_ratio": ratios,
            "work_ms_per_unit": round(
                statistics.median(cpu for cpu, _ in seconds[BASELINE]) / options.units * 1e3, 3
            ),
            "rows_written": stats.written,
            "rows_dropped": stats.dropped,
            "baseline": BASELINE,
        },
        settings=vars(options),
    )


if __name__ == "__main__":
    main()

"""How many requests kept their lane's promise, over the last minute, five minutes and hour.

Counted when a request ends, in rings of time buckets: bounded memory, whatever comes. Shares are
taken of everything *offered* and of what was admitted, so that shedding flatters neither: a refusal
is a broken promise. A request whose ``deadline_met`` is ``None`` counts for throughput alone.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ondol.core.clock import Clock
from ondol.core.events import Event, RequestFinished
from ondol.core.settings.lane_sections import LANES

WINDOWS: Mapping[str, float] = {"1m": 60.0, "5m": 300.0, "1h": 3600.0}
"""The windows' names and lengths in seconds."""

_BUCKETS = 60
_BIN = math.log(1.1)  # first-token times are binned by tenths: a percentile is right within 5 %


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """One lane over one window of ``seconds`` (less than the window's name says until it has run
    that long). Rates are per second, shares 0 to 1, ``None`` where there was nothing to judge.

    ``offered`` = ``admitted`` + ``rejected``; one refused while it waited counts as rejected.
    ``goodput_rps`` counts kept promises only. ``sla_compliance_rate`` is ``attainment_offered``.
    """

    seconds: float
    offered: int = 0
    admitted: int = 0
    completed: int = 0
    rejected: int = 0
    promised: int = 0
    kept: int = 0
    throughput_rps: float = 0.0
    goodput_rps: float = 0.0
    attainment_offered: float | None = None
    attainment_admitted: float | None = None
    sla_compliance_rate: float | None = None
    ttft_p50_ms: float | None = None
    ttft_p95_ms: float | None = None


@dataclass(slots=True)
class _Bucket:
    number: int
    offered: int = 0
    completed: int = 0
    rejected: int = 0
    kept: int = 0
    missed: int = 0
    missed_rejected: int = 0
    ttft: Counter[int] = field(default_factory=Counter)

    def count(self, event: RequestFinished) -> None:
        self.offered += 1
        rejected = event.outcome == "refused"
        self.completed += event.outcome == "ok"
        self.rejected += rejected
        met = event.deadline_met
        if met:
            self.kept += 1
        elif met is not None:
            self.missed += 1
            self.missed_rejected += rejected
        if event.generated and event.timing.ttft_ms > 0:
            self.ttft[math.floor(math.log(event.timing.ttft_ms) / _BIN)] += 1


class _Ring:
    """The buckets of one lane and window; the newest takes the place of the oldest."""

    def __init__(self, window: float) -> None:
        self.width = window / _BUCKETS
        self._buckets: list[_Bucket | None] = [None] * _BUCKETS

    def count(self, event: RequestFinished, *, now: float) -> None:
        number = math.floor(now / self.width)
        place = number % _BUCKETS
        bucket = self._buckets[place]
        if bucket is None or bucket.number != number:
            bucket = self._buckets[place] = _Bucket(number)
        bucket.count(event)

    def figures(self, *, now: float, since: float) -> LaneFigures:
        """Return the sum of the buckets that are in the window; ``since`` is when counting began."""
        last = math.floor(now / self.width)
        first = last - _BUCKETS + 1
        live = [bucket for bucket in self._buckets if bucket and first <= bucket.number <= last]
        seconds = max(now - max(first * self.width, since), self.width)
        return _figures(live, seconds=seconds)


class Goodput:
    """An ``Observer`` of finished requests; thread-safe. ``clock`` decides what is recent."""

    def __init__(self, *, clock: Clock, lanes: Sequence[str] = LANES) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._lock = threading.Lock()
        self._lanes = {lane: _rings() for lane in lanes}

    def observe(self, event: Event) -> None:
        if not isinstance(event, RequestFinished):
            return
        now = self._clock.monotonic()
        with self._lock:
            rings = self._lanes.get(event.lane)
            if rings is None:
                rings = self._lanes[event.lane] = _rings()
            for ring in rings.values():
                ring.count(event, now=now)

    def snapshot(self) -> dict[str, dict[str, LaneFigures]]:
        """Return lane → window name → figures, as they are now; every known lane is there."""
        now = self._clock.monotonic()
        with self._lock:
            return {
                lane: {
                    name: ring.figures(now=now, since=self._since) for name, ring in rings.items()
                }
                for lane, rings in self._lanes.items()
            }


def _rings() -> dict[str, _Ring]:
    return {name: _Ring(window) for name, window in WINDOWS.items()}


def _figures(buckets: Sequence[_Bucket], *, seconds: float) -> LaneFigures:
    offered = sum(bucket.offered for bucket in buckets)
    rejected = sum(bucket.rejected for bucket in buckets)
    completed = sum(bucket.completed for bucket in buckets)
    kept = sum(bucket.kept for bucket in buckets)
    promised = kept + sum(bucket.missed for bucket in buckets)
    admitted_promises = promised - sum(bucket.missed_rejected for bucket in buckets)
    attained = kept / promised if promised else None
    first_tokens: Counter[int] = Counter()
    for bucket in buckets:
        first_tokens.update(bucket.ttft)
    p50, p95 = _percentiles(first_tokens, (0.5, 0.95))
    return LaneFigures(
        seconds=seconds,
        offered=offered,
        admitted=offered - rejected,
        completed=completed,
        rejected=rejected,
        promised=promised,
        kept=kept,
        throughput_rps=completed / seconds,
        goodput_rps=kept / seconds,
        attainment_offered=attained,
        attainment_admitted=kept / admitted_promises if admitted_promises else None,
        sla_compliance_rate=attained,
        ttft_p50_ms=p50,
        ttft_p95_ms=p95,
    )


def _percentiles(bins: Mapping[int, int], shares: Sequence[float]) -> Iterator[float | None]:
    """Yield the middle of the bin that holds each nearest-rank percentile."""
    total = sum(bins.values())
    for share in shares:
        left = math.ceil(share * total)
        found: float | None = None
        for number in sorted(bins):
            left -= bins[number]
            if left <= 0:
                found = math.exp((number + 0.5) * _BIN)
                break
        yield found

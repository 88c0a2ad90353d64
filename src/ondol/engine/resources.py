"""How short of resources the machine is: a pure judgement of samples, with hysteresis.

A sample over a threshold lowers concurrency by a step, at once; after the last step, or near the
end of a resource, the lane ``batch`` is shed. Steps are taken back one by one, each after some
samples below the release line. Between the two lines nothing changes. Knows no machine and no clock:
a sample is a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from ondol.core.operating_sections import ResourceSettings
from ondol.core.usage import Usage
from ondol.engine.pressure import NO_PRESSURE, Pressure

CALM_SAMPLES = 2
CONCURRENCY = (1.0, 0.5, 0.25, 0.25)
"""Share of the slots by step; the last step sheds as well."""

_SHED = len(CONCURRENCY) - 1


class Zone(IntEnum):
    """Where the scarcest resource stands."""

    CALM = 0
    BETWEEN = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Threshold:
    """Shares of one resource: ``high`` takes a step, ``critical`` (half of what is left) sheds."""

    name: str
    high: float
    release: float

    @property
    def critical(self) -> float:
        return self.high + (1 - self.high) / 2

    def zone(self, share: float) -> Zone:
        if share >= self.critical:
            return Zone.CRITICAL
        if share >= self.high:
            return Zone.HIGH
        return Zone.BETWEEN if share >= self.release else Zone.CALM


class ResourceMonitor:
    """Turns samples into a ``Pressure``.

    Memory counts whoever holds it. Of the processor and the GPU only what *others* take from us
    counts: that this service uses all of them is what they are there for. A resource that cannot be
    read, and one whose threshold is 0, is not judged; when none can be, nothing changes.
    """

    def __init__(self, settings: ResourceSettings) -> None:
        release = settings.release_percent / 100
        self._memory = Threshold("memory", settings.memory_percent / 100, release)
        self._cpu = Threshold("processor time", settings.cpu_percent / 100, release)
        self._gpu = Threshold("GPU memory", settings.gpu_percent / 100, release)
        self._sample_seconds = settings.sample_seconds
        self._step = 0
        self._calm = 0
        self._pressure = NO_PRESSURE

    @property
    def pressure(self) -> Pressure:
        """What the last sample led to."""
        return self._pressure

    def feed(self, usage: Usage) -> Pressure:
        """Judge one sample and return what holds from now on."""
        judged = list(self._judged(usage))
        zone = max((threshold.zone(share) for threshold, share, _ in judged), default=Zone.BETWEEN)
        self._move(zone)
        if not self._step:
            self._pressure = NO_PRESSURE
            return self._pressure
        short = [(t, share, by) for t, share, by in judged if t.zone(share) > Zone.CALM]
        reasons = tuple(
            f"{threshold.name} ({share:.0%} {by}, the limit is {threshold.high:.0%})"
            for threshold, share, by in short
        )
        self._pressure = Pressure(
            level="critical" if self._step == _SHED else "high",
            concurrency=CONCURRENCY[self._step],
            shed=self._step == _SHED,
            reasons=reasons or ("resources that are recovering",),
            retry_after=self._soonest(),
        )
        return self._pressure

    def _judged(self, usage: Usage) -> Iterator[tuple[Threshold, float, str]]:
        for threshold, share, by in (
            (self._memory, usage.memory, "in use"),
            (self._cpu, usage.cpu_lost, "taken by others"),
            (self._gpu, usage.gpu_others, "taken by others"),
        ):
            if threshold.high > 0 and share is not None:
                yield threshold, share, by

    def _move(self, zone: Zone) -> None:
        if zone is Zone.CALM and self._step:
            self._calm += 1
            if self._calm >= CALM_SAMPLES:
                self._step, self._calm = self._step - 1, 0
            return
        self._calm = 0
        if zone is Zone.CRITICAL:
            self._step = _SHED
        elif zone is Zone.HIGH:
            self._step = min(self._step + 1, _SHED)

    def _soonest(self) -> float:
        """Seconds until the lane ``batch`` can be open again, if all is calm from now on."""
        return (CALM_SAMPLES - self._calm) * self._sample_seconds

"""How short of resources the machine is: a pure judgement of samples, with hysteresis.

A sample over a threshold lowers concurrency by a step, at once; after the last step, or near the
end of a resource, the lane ``batch`` is shed. Steps are taken back one by one, each after some
samples below the release line. Between the two lines nothing changes. Knows no machine and no clock:
a sample is a sample.

How short of resources the machine is, as admission needs to know it.

The resource monitor at work: a sample every few seconds, off the event loop.

Says what changed, on the loop: each new ``Pressure`` to who acts on it, each change of level to who
watches. Reading is somebody else's business and may be slow: it runs in a thread, and meanwhile the
last judgement holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from ondol.core.events import PressureChanged
from ondol.core.machine import MachineUsage
from ondol.core.sampling import Sampler
from ondol.core.settings.operation_sections import ResourceSettings
from ondol.core.timers import Timers

Level = Literal["none", "high", "critical"]


@dataclass(frozen=True, slots=True)
class Pressure:
    """``concurrency`` is the share of slots in use; ``shed`` closes the lane ``batch``."""

    level: Level = "none"
    concurrency: float = 1.0
    shed: bool = False
    reasons: tuple[str, ...] = ()
    retry_after: float = 10.0


NO_PRESSURE = Pressure()


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

    def feed(self, usage: MachineUsage) -> Pressure:
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

    def _judged(self, usage: MachineUsage) -> Iterator[tuple[Threshold, float, str]]:
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


_log = logging.getLogger("ondol.resources")


class ResourceWatch:
    """Feeds ``read`` to a ``ResourceMonitor``; ``press`` gets every pressure that differs from the
    last, ``changed`` an event where the level does. Not thread-safe: everything on one loop.
    """

    def __init__(
        self,
        read: Callable[[], MachineUsage],
        *,
        settings: ResourceSettings,
        timers: Timers,
        press: Callable[[Pressure], None],
        changed: Callable[[PressureChanged], None],
    ) -> None:
        self._monitor = ResourceMonitor(settings)
        self._press = press
        self._changed = changed
        self._usage = MachineUsage()
        self._sampler = Sampler(
            read,
            self._found,
            seconds=settings.sample_seconds,
            timers=timers,
            name="ondol-resources",
        )

    @property
    def pressure(self) -> Pressure:
        """What holds now."""
        return self._monitor.pressure

    @property
    def usage(self) -> MachineUsage:
        """The last sample, for gauges and health pages; all unknown before the first."""
        return self._usage

    def start(self) -> None:
        """Begin to sample."""
        self._sampler.start()

    async def look(self) -> Pressure:
        """Take one sample now, without waiting for the next to be due."""
        await self._sampler.look()
        return self.pressure

    async def close(self) -> None:
        """Sample no more; the last pressure stays."""
        await self._sampler.close()

    async def _found(self, usage: MachineUsage) -> None:
        before = self._monitor.pressure
        self._usage = usage
        now = self._monitor.feed(usage)
        if now != before:
            self._press(now)
        if now.level == before.level:
            return
        _log.log(
            logging.INFO if now.level == "none" else logging.WARNING,
            "resources: %s instead of %s%s",
            now.level,
            before.level,
            "".join(f"; {reason}" for reason in now.reasons),
        )
        self._changed(
            PressureChanged(
                level=now.level,
                before=before.level,
                concurrency=now.concurrency,
                shed=now.shed,
                reasons=now.reasons,
            )
        )

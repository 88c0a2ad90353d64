"""The resource monitor at work: a sample every few seconds, off the event loop.

Says what changed, on the loop: each new ``Pressure`` to who acts on it, each change of level to who
watches. Reading is somebody else's business and may be slow: it runs in a thread, and meanwhile the
last judgement holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ondol.core.operating_sections import ResourceSettings
from ondol.core.pressure_changed import PressureChanged
from ondol.core.sampling import Sampler
from ondol.core.timers import Timers
from ondol.core.usage import Usage
from ondol.engine.pressure import Pressure
from ondol.engine.resources import ResourceMonitor

_log = logging.getLogger("ondol.resources")


class ResourceWatch:
    """Feeds ``read`` to a ``ResourceMonitor``; ``press`` gets every pressure that differs from the
    last, ``changed`` an event where the level does. Not thread-safe: everything on one loop.
    """

    def __init__(
        self,
        read: Callable[[], Usage],
        *,
        settings: ResourceSettings,
        timers: Timers,
        press: Callable[[Pressure], None],
        changed: Callable[[PressureChanged], None],
    ) -> None:
        self._monitor = ResourceMonitor(settings)
        self._press = press
        self._changed = changed
        self._usage = Usage()
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
    def usage(self) -> Usage:
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

    async def _found(self, usage: Usage) -> None:
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

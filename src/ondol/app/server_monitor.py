"""What a server watches of itself while it serves: the machine's resources, and its own idleness.

Pressure lowers what the generator runs; idleness leads to what the watchdog's settings say. Owns the
two watches and nothing else. Used on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ondol.app.idle_watchdog import ServiceAction, Watchdog
from ondol.core.clock import Clock
from ondol.core.events import Observer
from ondol.core.machine import MachineUsage
from ondol.core.settings import Settings
from ondol.core.timers import LoopTimers
from ondol.runtime.encoders.encoder_group import EncoderGroup
from ondol.runtime.generation.generator_slot import GeneratorSlot
from ondol.runtime.pressure import NO_PRESSURE, Pressure, ResourceWatch
from ondol.telemetry.gpu import Gpus
from ondol.telemetry.usage import UsageReader
from ondol.telemetry.watchdog import ServiceLoad


class ServerMonitor:
    """``inside`` counts the requests that are open, ``stop`` ends the server as a signal would.

    ``encoders`` and ``generator`` say what is loaded at that moment.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        encoders: Callable[[], Mapping[str, EncoderGroup]],
        generator: Callable[[], GeneratorSlot | None],
        inside: Callable[[], int],
        stop: Callable[[], None],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._settings = settings
        self._encoders = encoders
        self._generator = generator
        self._inside = inside
        self._stop = stop
        self._clock = clock
        self._observer = observer
        self._resources: ResourceWatch | None = None
        self._watchdog: Watchdog | None = None

    @property
    def pressure(self) -> Pressure:
        return NO_PRESSURE if self._resources is None else self._resources.pressure

    @property
    def usage(self) -> MachineUsage:
        """The last sample of the machine; all unknown before the first."""
        return MachineUsage() if self._resources is None else self._resources.usage

    async def start(self) -> None:
        """Begin to watch."""
        timers = LoopTimers()
        self._resources = ResourceWatch(
            (await _reader()).read,
            settings=self._settings.resources,
            timers=timers,
            press=self._press,
            changed=self._observer.observe,
        )
        self._resources.start()
        if self._settings.watchdog.action != "none":
            self._watchdog = Watchdog(
                self._settings.watchdog,
                read=(await _reader()).read,
                load=self._load,
                act=self._act,
                clock=self._clock,
                timers=timers,
            )
            self._watchdog.start()

    async def close(self) -> None:
        """Watch no more."""
        if self._watchdog is not None:
            await self._watchdog.close()
        if self._resources is not None:
            await self._resources.close()
        self._watchdog = self._resources = None

    def _press(self, pressure: Pressure) -> None:
        slot = self._generator()
        if slot is not None:
            slot.press(pressure)

    async def _load(self) -> ServiceLoad | None:
        """Return what runs and waits; a request that is open counts, whatever it does."""
        slot = self._generator()
        now = slot.snapshot() if slot is not None else None
        running, queued = (now.running, now.depth) if now is not None else (0, 0)
        queued += sum(group.depth for group in self._encoders().values())
        return ServiceLoad(running=max(running, self._inside()), queued=queued)

    async def _act(self, action: ServiceAction) -> str:
        if action == "exit":
            self._stop()
            return "the server was told to stop"
        freed = [name for name, group in self._encoders().items() if await group.unload()]
        slot = self._generator()
        if slot is not None and await slot.unload():
            freed.append("generator")
        return f"unloaded {', '.join(freed)}" if freed else "nothing was loaded"


async def _reader() -> UsageReader:
    """Return a reader of its own: one serves one thread at a time."""
    return UsageReader(gpus=await asyncio.to_thread(Gpus.open))

"""The container's life inside a server: loaded in the background, reloaded, closed.

The port answers from the first moment; only ``health`` says whether the models behind it are there.
A component that cannot be loaded stays red with its reason, and the others serve.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ondol.app.components import ComponentState
from ondol.app.container import Container
from ondol.app.server_monitor import ServerMonitor
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import Conflict, NotReady
from ondol.core.machine import MachineUsage
from ondol.jobs.runner import JobRunner
from ondol.server.request_gate import Gate

Status = Literal["starting", "ready", "degraded", "draining"]
Reloadable = Literal["embedder", "reranker", "generator"]
RELOADABLE: tuple[Reloadable, ...] = ("embedder", "reranker", "generator")


@dataclass(frozen=True, slots=True)
class Health:
    """What ``/health/ready`` tells; only ``ready`` means that every request can be served."""

    status: Status
    components: Mapping[str, ComponentState]

    @property
    def reason(self) -> str:
        """Return one line on everything that is not ready."""
        if self.status == "draining":
            return "the server is shutting down"
        waiting = [
            f"{name} is {component.state}" + (f" ({component.reason})" if component.reason else "")
            for name, component in self.components.items()
            if component.state not in {"ready", "off"}
        ]
        return "; ".join(waiting) or "components are about to be loaded"


def terminate() -> None:
    """End this process as a signal from outside would: by draining."""
    signal.raise_signal(signal.SIGTERM)


class Lifecycle:
    """Owns the one ``Container`` of a server, and the watch over it."""

    def __init__(
        self,
        container: Container,
        *,
        gate: Gate,
        clock: Clock | None = None,
        stop: Callable[[], None] = terminate,
    ) -> None:
        self.container = container
        self._gate = gate
        self._clock = clock or SystemClock()
        self._loading: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._jobs: JobRunner | None = None
        self._closed = False
        self._upkeep = ServerMonitor(
            container.settings,
            encoders=lambda: container.encoders,
            generator=lambda: container.loaded_generator,
            inside=lambda: gate.inside,
            stop=stop,
            clock=self._clock,
            observer=container.observer,
        )

    @property
    def usage(self) -> MachineUsage:
        """The last sample of the machine."""
        return self._upkeep.usage

    @property
    def jobs(self) -> JobRunner | None:
        """Who works the jobs; ``None`` until everything has loaded, and without a store."""
        return self._jobs

    def start(self) -> None:
        """Begin to load in the background."""
        self._loading = asyncio.create_task(self._load(), name="ondol-load")

    async def loaded(self) -> Health:
        """Wait until every component is ready or has failed."""
        if self._loading is not None:
            await asyncio.shield(self._loading)
        return self.health()

    def health(self) -> Health:
        """Return whether requests can be served now, component by component."""
        readiness = self.container.readiness()
        status: Status = "ready" if readiness.ready else "degraded"
        if self._gate.draining:
            status = "draining"
        elif self._loading is None or not self._loading.done():
            status = "starting"
        return Health(status=status, components=readiness.components)

    async def reload(self, components: Sequence[Reloadable], *, form: str = "auto") -> float:
        """Load ``components`` anew, one by one, and return the seconds it took.

        ``form`` names the form of an encoder; ``auto`` is what the settings say.

        The running ones serve until the new ones stand. Raises ``Conflict`` while another load
        runs, and whatever loading raises; a caller that leaves does not stop it.
        """
        for task in (self._loading, self._reloading):
            if task is not None and not task.done():
                raise Conflict(
                    "models are being loaded already",
                    hint="wait until GET /health/ready answers 200",
                    code="reload_running",
                )
        before = self._clock.monotonic()
        self._reloading = asyncio.create_task(self._reload(components, form), name="ondol-reload")
        await asyncio.shield(self._reloading)
        return self._clock.monotonic() - before

    async def drain(self, seconds: float) -> None:
        """Begin no more items of jobs; let those that run end within ``seconds``."""
        if self._jobs is not None:
            await self._jobs.drain(seconds)

    async def close(self) -> None:
        """Stop loading, if that runs, and close the container. Later calls do nothing."""
        if self._closed:
            return
        self._closed = True
        tasks = [task for task in (self._loading, self._reloading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._jobs is not None:
            await self._jobs.close()
        await self._upkeep.close()
        await self.container.close()

    async def _load(self) -> None:
        await self.container.start()
        await self._upkeep.start()
        try:
            self._jobs = self.container.jobs.runner()
        except NotReady:
            return  # without a store there are no jobs; its state says why
        self._jobs.start()

    async def _reload(self, components: Sequence[Reloadable], form: str) -> None:
        for component in components:
            await self.container.reload(component, form=form)

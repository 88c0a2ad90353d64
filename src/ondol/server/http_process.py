"""The server as a process: a socket, signals, the line that says it is ready, the drain.

SIGTERM or ctrl-C stops admission (503 ``draining``), lets what runs finish for ``drain_seconds``,
then closes; a second signal does not wait. Uvicorn serves; nothing else here knows it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import ModelError, SettingsError
from ondol.core.settings.sections import ServerSettings
from ondol.server.lifecycle import Health, Lifecycle
from ondol.server.protocol import HEADER_BYTES, bounded_protocol
from ondol.server.request_gate import Gate

KEEP_ALIVE_SECONDS = 30
LAST_WORDS_SECONDS = 2

Announce = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Write one line for people."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class _Uvicorn(uvicorn.Server):
    """Uvicorn that says when it listens, without its signals: they would close the port first."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpProcess:
    """Runs one app on one socket until it is told to stop. The socket is bound at once."""

    def __init__(
        self,
        app: FastAPI,
        *,
        settings: ServerSettings,
        announce: Announce = to_stderr,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._clock = clock or SystemClock()
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._gate: Gate = app.state.gate
        self._socket = listening_socket(settings.host, settings.port)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=bounded_protocol(most_connections=2 * settings.max_connections),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=LAST_WORDS_SECONDS,
                h11_max_incomplete_event_size=HEADER_BYTES,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the server can be reached, with the port the system chose."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def port(self) -> int:
        """The TCP port it listens on, which the system may have chosen."""
        port: int = self._socket.getsockname()[1]
        return port

    def run(self) -> None:
        """Serve until stopped; raises ``ModelError`` when a component cannot be loaded."""
        asyncio.run(self.serve())

    def stop(self) -> None:
        """Begin to drain; said twice, close at once. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_signal)

    async def serve(self) -> None:
        """Serve on this event loop until stopped."""
        self._loop = asyncio.get_running_loop()
        started = self._clock.monotonic()
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        loading = asyncio.create_task(self._load(started))
        stopping = asyncio.create_task(self._stopping.wait())
        with self._signals():
            await asyncio.wait({serving, stopping, loading}, return_when=asyncio.FIRST_COMPLETED)
            if not _failed(loading):
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                await self._drain()
            stopping.cancel()
            self._server.should_exit = True
            await serving
        if _failed(loading):
            loading.result()
        loading.cancel()
        await asyncio.gather(loading, stopping, return_exceptions=True)

    async def _load(self, started: float) -> None:
        await self._server.listening.wait()
        health = await self._lifecycle.loaded()
        if health.status == "degraded":
            raise ModelError(
                f"the server cannot start: {health.reason}",
                hint="run `ondol doctor`, or turn the component off in the settings",
                code="startup_failed",
            )
        seconds = self._clock.monotonic() - started
        self._announce(f"ondol is ready on {self.url} in {seconds:.1f} s ({_models(health)})")

    async def _drain(self) -> None:
        self._gate.drain()
        empty = asyncio.create_task(self._empty(), name="ondol-drain")
        hurry = asyncio.create_task(self._hurrying.wait())
        await asyncio.wait({empty, hurry}, return_when=asyncio.FIRST_COMPLETED)
        empty.cancel()
        hurry.cancel()
        await asyncio.gather(empty, hurry, return_exceptions=True)
        await self._lifecycle.close()
        await self._gate.wait_until(0, seconds=LAST_WORDS_SECONDS)

    async def _empty(self) -> None:
        seconds = self._settings.drain_seconds
        await asyncio.gather(
            self._gate.wait_until(0, seconds=seconds), self._lifecycle.drain(seconds)
        )

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket bound to ``host:port`` (0: any); raises ``SettingsError`` where it cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bare = host.strip("[]")
    try:
        server = socket.create_server((bare, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="stop what uses the port, or choose another with --port",
            param="server.port",
        ) from None
    # Connections inherit it. asyncio sets it only where the protocol number is spelt out, and
    # without it an answer's body waits for the client to acknowledge the headers: 40 ms.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _models(health: Health) -> str:
    return (
        ", ".join(
            f"{name} {component.model}"
            for name, component in health.components.items()
            if component.model
        )
        or "no models"
    )

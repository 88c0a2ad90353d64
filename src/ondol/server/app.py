"""The application: routers, middleware and the container's life put together.

``create_app`` starts nothing; loading begins with the app's lifespan, and the port answers
meanwhile. ``serve`` runs it as a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.clock import SystemClock
from ondol.core.errors import OndolError
from ondol.core.events import Observer
from ondol.core.pid_file import announced
from ondol.core.process import settle
from ondol.core.settings import Settings
from ondol.core.settings.sections import ServerSettings
from ondol.server.auth import KeyGuard, LoopbackGuard, check_exposure, key_lanes
from ondol.server.http_process import Announce, HttpProcess, to_stderr
from ondol.server.lifecycle import Lifecycle
from ondol.server.middleware import AdmissionMiddleware, RequestContext
from ondol.server.request_gate import BodyLimit, Gate, RequestLimits
from ondol.server.routes import (
    answer_routes,
    collection_routes,
    job_routes,
    model_routes,
    openai_routes,
    operation_routes,
    rerank_routes,
    task_routes,
    web_routes,
)
from ondol.server.server_errors import error_response
from ondol.telemetry.logs import configure_logging
from ondol.telemetry.metrics import Listeners
from ondol.telemetry.readings import LaneLoad

OpenContainer = Callable[[Settings, Observer], Container]

# In this order a request is matched: what is asked most often first.
_ROUTERS = (
    openai_routes.routes,
    rerank_routes.routes,
    answer_routes.search_routes,
    answer_routes.routes,
    operation_routes.routes,
    model_routes.routes,
    collection_routes.routes,
    collection_routes.document_routes,
    job_routes.routes,
    task_routes.routes,
)
_ERROR_DOCS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": 'The envelope {"error": {message, type, code, param, hint}}',
        "content": {"application/json": {}},
    }
    for status in ("4XX", "5XX")
}


def open_container(settings: Settings, observer: Observer) -> Container:
    """Return the container a server uses unless it is given another."""
    parts = Parts(record=settings.telemetry.record)
    return Container.open(settings, parts=parts, observer=observer)


def create_app(settings: Settings, *, opener: OpenContainer = open_container) -> FastAPI:
    """Return the ASGI application; raises ``SettingsError`` where it would be open to others."""
    check_exposure(settings.server)
    listeners = Listeners(settings.telemetry, clock=SystemClock())
    gate = Gate(limit=settings.server.max_connections, drain_seconds=settings.server.drain_seconds)
    container = opener(settings, listeners)
    lifecycle = Lifecycle(container, gate=gate)
    _connect(listeners, lifecycle)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        lifecycle.start()
        try:
            yield
        finally:
            gate.drain()
            await lifecycle.close()
            await asyncio.to_thread(listeners.close)

    app = FastAPI(
        title="Ondol",
        version=version("ondol"),
        summary="Embeddings, reranking, search and cited answers from local models.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.server.docs else None,
        redirect_slashes=False,
        responses=_ERROR_DOCS,
        middleware=_middleware(settings.server, gate),
        exception_handlers={
            OndolError: _as_envelope,
            HTTPException: _as_envelope,
            RequestValidationError: _as_envelope,
        },
    )
    app.state.lifecycle = lifecycle
    app.state.gate = gate
    app.state.listeners = listeners
    app.state.limits = RequestLimits.of(settings.server)
    for routes in _ROUTERS:
        app.include_router(routes)
    app.include_router(web_routes.pages(docs=settings.server.docs))
    return app


def serve(
    settings: Settings,
    *,
    opener: OpenContainer = open_container,
    announce: Announce = to_stderr,
) -> None:
    """Run the server until SIGTERM or ctrl-C; ``announce`` gets the one line that says it is ready.

    Raises ``SettingsError`` (exposed without keys, port taken) and ``ModelError`` (a component
    cannot be loaded).
    """
    configure_logging(settings.log_level)
    app = create_app(settings, opener=opener)

    def ready(line: str) -> None:
        settle()  # the process is a server's alone: what has loaded stays
        announce(line)

    process = HttpProcess(app, settings=settings.server, announce=ready)
    with announced(settings.home, port=process.port):
        process.run()


def _connect(listeners: Listeners, lifecycle: Lifecycle) -> None:
    """Say where ``/metrics`` reads what is looked up only when it is asked for."""
    container, sources = lifecycle.container, listeners.metrics.sources
    sources.lanes = lambda: {
        name: LaneLoad(now.depth, now.running, now.queue, now.limit, now.wait_seconds)
        for name, now in container.lanes().items()
    }
    sources.usage = lambda: lifecycle.usage
    sources.recorder = lambda: container.recorder_stats
    sources.jobs = lambda: None if lifecycle.jobs is None else lifecycle.jobs.figures()


def _middleware(settings: ServerSettings, gate: Gate) -> list[Middleware]:
    """Return the layers, outermost first: who asks is settled before anything is counted or read."""
    guard = (
        Middleware(
            KeyGuard,
            keys=settings.api_keys,
            lanes=key_lanes(settings.key_lanes, keys=settings.api_keys),
        )
        if settings.api_keys
        else Middleware(LoopbackGuard)
    )
    return [
        Middleware(RequestContext),
        guard,
        Middleware(AdmissionMiddleware, gate=gate),
        Middleware(BodyLimit, most=settings.max_body_bytes),
    ]


async def _as_envelope(_: Request, error: Exception) -> Response:
    return error_response(error)

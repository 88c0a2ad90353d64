"""``/metrics`` for Prometheus and ``/v1/lanes`` for people."""

from __future__ import annotations

from starlette.responses import Response

from ondol.core.errors import NotReady
from ondol.server.errors import json_response
from ondol.server.routing import MetricsOf, Open, router
from ondol.services.container import Container
from ondol.telemetry.metrics import CONTENT_TYPE

routes = router("operations")


@routes.get("/metrics")
async def metrics(metrics: MetricsOf) -> Response:
    """Return every series in the Prometheus text format."""
    return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})


@routes.get("/v1/lanes")
async def lanes(container: Open) -> Response:
    """Return how full each lane is: waiting (``depth``), ``running``, and ``capacity``."""
    return json_response({"lanes": _encoders(container) | _chat(container)})


def _encoders(container: Container) -> dict[str, dict[str, int | float]]:
    return {
        lane: {
            "depth": batcher.depth,
            "waiting_items": batcher.waiting,
            "capacity": batcher.capacity,
        }
        for lane, batcher in container.batchers.items()
    }


def _chat(container: Container) -> dict[str, dict[str, int | float]]:
    try:
        now = container.generation.snapshot()
    except NotReady:
        return {}
    return {
        "chat": {
            "depth": now.depth,
            "running": now.running,
            "capacity": now.queue,
            "slots": now.slots,
            "oldest_seconds": now.oldest_seconds,
            "service_seconds": now.service_seconds,
            "retry_after": now.retry_after,
        }
    }

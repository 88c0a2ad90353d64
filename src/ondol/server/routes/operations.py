"""``/metrics`` for Prometheus and ``/v1/lanes`` for people."""

from __future__ import annotations

from dataclasses import asdict

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
    """Return how full each lane is: waiting (``depth``), ``running``, and ``capacity``.

    ``embedding_cache`` has what each of its tiers holds and has done, the nearest first.
    """
    return json_response(
        {
            "lanes": _encoders(container) | _chat(container),
            "embedding_cache": [asdict(tier) for tier in container.cache_stats],
        }
    )


def _encoders(container: Container) -> dict[str, dict[str, int | float]]:
    lanes = {"embedder": "embeddings", "reranker": "rerank"}
    return {
        lanes[component]: {
            "depth": group.depth,
            "waiting_items": group.waiting,
            "capacity": group.capacity,
        }
        for component, group in container.encoders.items()
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

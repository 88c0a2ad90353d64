"""``/metrics`` for Prometheus and ``/v1/lanes`` for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from ondol.core.errors import NotReady
from ondol.core.lane_state import LaneSnapshot
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
    """Return what each lane holds, promises and has kept, and what the generator does.

    ``depth`` waits and ``running`` runs, within ``capacity`` and ``limit``; ``estimated_wait_ms`` is
    what a newcomer that goes last would meet; ``rejected_by`` counts refusals by reason since the
    start. ``embedding_cache`` has what each of its tiers holds and has done, the nearest first.
    """
    return json_response(
        {
            "lanes": _lanes(container),
            "generator": _generator(container),
            "embedding_cache": [asdict(tier) for tier in container.cache_stats],
        }
    )


def _lanes(container: Container) -> dict[str, dict[str, Any]]:
    settings = container.settings.lanes
    shown: dict[str, dict[str, Any]] = {}
    try:
        now = container.generation.snapshot().lanes
    except NotReady:
        now = {}
    for name in type(settings).model_fields:
        lane = settings.lane(name)
        shown[name] = {
            "capacity": lane.queue,
            "limit": lane.running,
            "sla_ms": lane.sla_ms or None,
            "weight": lane.weight,
        }
        if name in now:
            shown[name] |= _now(now[name])
    return shown | {name: shown[name] | found for name, found in _encoders(container).items()}


def _now(lane: LaneSnapshot) -> dict[str, Any]:
    return {
        "depth": lane.depth,
        "running": lane.running,
        "oldest_seconds": lane.oldest_seconds,
        "estimated_wait_ms": lane.wait_seconds * 1e3,
        "retry_after": lane.retry_after,
        "rejected": sum(lane.rejected.values()),
        "rejected_by": lane.rejected,
    }


def _generator(container: Container) -> dict[str, Any] | None:
    try:
        now = asdict(container.generation.snapshot())
    except NotReady:
        return None
    return {name: value for name, value in now.items() if name != "lanes"}


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

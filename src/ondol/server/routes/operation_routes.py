"""``/metrics`` for Prometheus and ``/v1/lanes`` for people.

``/health/live``: the process answers. ``/health/ready``: every request can be served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from ondol.app.container import Container
from ondol.core.errors import NotReady
from ondol.core.lane_state import LaneSnapshot
from ondol.core.settings.lane_sections import EncoderLaneSettings, LaneSettings
from ondol.server.lifecycle import Health
from ondol.server.routing import GoodputOf, Life, MetricsOf, Open, router
from ondol.server.server_errors import json_response, problem_of
from ondol.telemetry.goodput import LaneFigures
from ondol.telemetry.metrics import CONTENT_TYPE

routes = router("operations")

RETRY_SECONDS = 2


@routes.get("/metrics")
async def metrics(metrics: MetricsOf) -> Response:
    """Return every series in the Prometheus text format."""
    text = await asyncio.to_thread(metrics.render, metrics.look())
    return Response(text, headers={"content-type": CONTENT_TYPE})


@routes.get("/v1/lanes")
async def lanes(container: Open, goodput: GoodputOf) -> Response:
    """Return what each lane holds, promises and has kept, and what the generator does.

    ``depth`` waits and ``running`` runs, within ``capacity`` and ``limit``; ``estimated_wait_ms`` is
    what a newcomer that goes last would meet; ``rejected_by`` counts refusals by reason since the
    start; ``windows`` has throughput, goodput and attainment of the last minute, five and hour.
    ``embedding_cache`` has what each of its tiers holds and has done, the nearest first.
    """
    settings = container.settings.lanes
    windows = goodput.snapshot()
    return json_response(
        {
            "lanes": {
                name: _lane(now, getattr(settings, name), windows.get(name, {}))
                for name, now in container.lanes().items()
            },
            "generator": _generator(container),
            "embedding_cache": [asdict(tier) for tier in container.cache_stats],
        }
    )


def _lane(
    now: LaneSnapshot, rules: EncoderLaneSettings, windows: Mapping[str, LaneFigures]
) -> dict[str, Any]:
    recent = windows.get("5m")
    return {
        "depth": now.depth,
        "running": now.running,
        "capacity": now.queue,
        "limit": now.limit,
        "oldest_seconds": now.oldest_seconds,
        "estimated_wait_ms": now.wait_seconds * 1e3,
        "retry_after": now.retry_after,
        "rejected": sum(now.rejected.values()),
        "rejected_by": now.rejected,
        "sla_ms": rules.sla_ms or None,
        "weight": rules.weight if isinstance(rules, LaneSettings) else None,
        "attainment": recent.attainment_offered if recent is not None else None,
        "windows": {name: asdict(figures) for name, figures in windows.items()},
    }


def _generator(container: Container) -> dict[str, Any] | None:
    slot = container.loaded_generator
    now = slot.snapshot() if slot is not None else None
    if now is None:
        return None
    return {name: value for name, value in asdict(now).items() if name != "lanes"}


@routes.get("/health/live")
async def live() -> Response:
    """Answer 200 for as long as the process runs."""
    return json_response({"status": "live"})


@routes.get("/health/ready")
async def ready(life: Life) -> Response:
    """Answer 200 when every component is ready, else 503 with the reasons."""
    health = life.health()
    content = {"status": health.status, "components": _components(health)}
    if health.status == "ready":
        return json_response(content)
    problem = problem_of(
        NotReady(
            f"not ready: {health.reason}",
            retry_after=RETRY_SECONDS,
            hint="ask again shortly; a component that failed says why under components",
            code="draining" if health.status == "draining" else "not_ready",
        )
    )
    return json_response(
        {**problem.envelope(), **content}, status=problem.status, headers=problem.headers
    )


def _components(health: Health) -> dict[str, dict[str, object]]:
    return {name: asdict(component) for name, component in health.components.items()}

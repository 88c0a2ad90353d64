"""``/health/live``: the process answers. ``/health/ready``: every request can be served."""

from __future__ import annotations

from dataclasses import asdict

from starlette.responses import Response

from ondol.core.errors import NotReady
from ondol.server.errors import json_response, problem_of
from ondol.server.lifecycle import Health
from ondol.server.routing import Life, router

RETRY_SECONDS = 2

routes = router("operations")


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

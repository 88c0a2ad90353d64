"""``/v1/tasks``: which declared analyses there are, and running one on one input."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from ondol.server.auth import terms_of
from ondol.server.routing import Open, TimingOf, router
from ondol.server.schemas import TaskBody
from ondol.server.server_errors import json_response

routes = router("tasks")


@routes.get("/v1/tasks")
async def list_tasks(container: Open) -> Response:
    """Return every task: its lane, languages, steps and limits."""
    return json_response({"tasks": [asdict(one) for one in container.tasks.describe()]})


@routes.get("/v1/tasks/{name}")
async def get_task(name: str, container: Open) -> Response:
    """Return one task with the JSON schemas of its input and its result."""
    return json_response(asdict(container.tasks.describe(name)[0]))


@routes.post("/v1/tasks/{name}")
async def run_task(
    name: str, body: TaskBody, request: Request, container: Open, timing: TimingOf
) -> Response:
    """Run a task; every claim of the result names the review or the place it rests on."""
    tasks = container.tasks
    terms = terms_of(request, lane=tasks.task(name).lane)
    return json_response(asdict(await tasks.run(name, body.input, terms=terms, timing=timing)))

"""``/v1/models``: what is loaded and how it runs, what the catalogue knows; loading anew, unloading.

``/v1/ab`` shows the comparison that runs, if any.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response

from ondol.app.container import Container
from ondol.core.errors import InvalidInput, NotFound
from ondol.core.settings.sections import FormName
from ondol.server.lifecycle import RELOADABLE, Reloadable
from ondol.server.loaded_models import loaded_models, unknown_model
from ondol.server.routing import Life, Open, router
from ondol.server.schemas import RequestBody
from ondol.server.server_errors import json_response

routes = router("models")


class ReloadBody(RequestBody):
    """``POST /v1/models/reload``."""

    component: Literal["embedder", "reranker", "generator"] | None = Field(
        None, description="Which one; null loads all that are in use."
    )
    form: FormName = Field(
        "auto", description="Form of the embedder or reranker; auto is what the settings say."
    )


class UnloadBody(RequestBody):
    """``POST /v1/models/unload``."""

    component: Literal["embedder", "reranker", "generator"] | None = Field(
        None, description="Which one; null unloads all that are idle."
    )


@routes.get("/v1/models")
async def list_models(container: Open) -> Response:
    """List the loaded models in OpenAI's shape."""
    data = [model.as_json() for model in loaded_models(container)]
    return json_response({"object": "list", "data": data})


@routes.post("/v1/models/reload")
async def reload_models(body: ReloadBody, life: Life) -> Response:
    """Load models anew, from the same settings; the old ones serve until the new ones stand.

    No request fails for it. A form that is named holds until the next reload or start.
    """
    if body.form != "auto" and body.component not in ("embedder", "reranker"):
        raise InvalidInput(
            f"form = {body.form!r} without the encoder it is for",
            hint="send component = 'embedder' or 'reranker' with it",
            param="form",
        )
    used = life.container.readiness().components
    wanted: list[Reloadable] = [
        component
        for component in RELOADABLE
        if body.component == component
        or (body.component is None and component in used and used[component].state != "off")
    ]
    seconds = await life.reload(wanted, form=body.form)
    data = [model.as_json() for model in loaded_models(life.container)]
    return json_response({"reloaded": wanted, "seconds": seconds, "data": data})


@routes.post("/v1/models/unload")
async def unload_models(body: UnloadBody, container: Open) -> Response:
    """Release the memory of models that nothing uses now; the next request loads them again.

    ``busy`` names those that were left alone because a request is in them.
    """
    models = container.models
    if body.component is not None and body.component not in models:
        raise NotFound(
            f"no {body.component} is loaded", hint="see GET /v1/models", param="component"
        )
    wanted = [body.component] if body.component else list(models)
    unloaded = [name for name in wanted if await models[name].unload()]
    cold = [name for name in wanted if models[name].cold]
    return json_response(
        {
            "unloaded": unloaded,
            "busy": [name for name in wanted if name not in cold],
            "data": [model.as_json() for model in loaded_models(container)],
        }
    )


@routes.get("/v1/ab")
async def comparisons(container: Open) -> Response:
    """Return the A/B comparisons that run: latency of each side, agreement, errors."""
    trials = [group.ab for group in container.encoders.values()]
    return json_response({"comparisons": [asdict(trial) for trial in trials if trial is not None]})


@routes.get("/v1/models/{model:path}")
async def get_model(model: str, container: Open) -> Response:
    """Return a loaded model, or what the catalogue says of one that is not loaded."""
    for loaded in loaded_models(container):
        if loaded.id == model:
            return json_response({**loaded.as_json(), **_running(container, loaded.role)})
    try:
        known = container.library.entry(model)
    except NotFound:
        raise unknown_model(container, model) from None
    return json_response(
        {
            "object": "model",
            "created": 0,
            "owned_by": "ondol",
            "id": known.id,
            "role": known.role,
            "state": "not_loaded",
            "files": container.library.state(known.id),
            "dimensions": known.dimensions,
            "max_tokens": known.max_tokens,
        }
    )


def _running(container: Container, role: str) -> dict[str, Any]:
    """Return how an encoder runs: a slot for queries, one for bulk work where its form differs."""
    group = container.encoders.get(role)
    if group is None:
        return {}
    trial = group.ab
    return {
        "slots": [asdict(slot) for slot in group.slots],
        "ab": asdict(trial) if trial is not None else None,
        "cache": [asdict(tier) for tier in container.cache_stats] if role == "embedder" else [],
    }

"""``/v1/models``: what is loaded, what the catalogue knows, and loading anew."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from starlette.responses import Response

from ondol.core.errors import NotFound
from ondol.models.catalogue import entry
from ondol.server.errors import json_response
from ondol.server.lifecycle import RELOADABLE, Reloadable
from ondol.server.loaded import loaded_models, unknown_model
from ondol.server.routing import Life, Open, router
from ondol.server.schemas import Body

routes = router("models")


class ReloadBody(Body):
    """``POST /v1/models/reload``."""

    component: Literal["embedder", "reranker", "generator"] | None = Field(
        None, description="Which one; null loads all that are in use."
    )


@routes.get("/v1/models")
async def list_models(container: Open) -> Response:
    """List the loaded models in OpenAI's shape."""
    data = [model.as_json() for model in loaded_models(container)]
    return json_response({"object": "list", "data": data})


@routes.post("/v1/models/reload")
async def reload_models(body: ReloadBody, life: Life) -> Response:
    """Load models anew, from the same settings; the old ones serve until the new ones stand."""
    used = life.container.readiness().components
    wanted: list[Reloadable] = [
        component
        for component in RELOADABLE
        if body.component == component
        or (body.component is None and component in used and used[component].state != "off")
    ]
    seconds = await life.reload(wanted)
    data = [model.as_json() for model in loaded_models(life.container)]
    return json_response({"reloaded": wanted, "seconds": seconds, "data": data})


@routes.get("/v1/models/{model:path}")
async def get_model(model: str, container: Open) -> Response:
    """Return a loaded model, or what the catalogue says of one that is not loaded."""
    for loaded in loaded_models(container):
        if loaded.id == model:
            return json_response(loaded.as_json())
    try:
        known = entry(model)
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

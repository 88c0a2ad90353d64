"""Which models answer here, and whether a request's ``model`` names one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ondol.app.container import Container
from ondol.core.errors import NotFound
from ondol.core.types import ModelRole

AUTO = "auto"
"""As a request's ``model``: whichever this server has loaded for the job."""

_ROLES: tuple[ModelRole, ...] = ("embedder", "reranker", "generator")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One model that answers here; ``dimensions`` is set for the embedder alone."""

    id: str
    role: ModelRole
    state: str
    reason: str = ""
    dimensions: int | None = None
    max_tokens: int | None = None

    def as_json(self) -> Mapping[str, Any]:
        """Return OpenAI's model object with our fields beside it."""
        return {"object": "model", "created": 0, "owned_by": "ondol", **asdict(self)}


def loaded_models(container: Container) -> list[LoadedModel]:
    """Return the models that are loaded now, embedder first; a LoRA adapter answers as a model."""
    components = container.readiness().components
    models = []
    for role in _ROLES:
        component = components.get(role)
        if component is None or not component.model:
            continue
        embedder = role == "embedder" and component.state == "ready"
        models.append(
            LoadedModel(
                id=component.model,
                role=role,
                state=component.state,
                reason=component.reason,
                dimensions=container.embedding.dimensions if embedder else None,
                max_tokens=container.embedding.max_tokens if embedder else None,
            )
        )
    generator = container.loaded_generator
    if generator is not None and models and models[-1].role == "generator":
        models += [replace(models[-1], id=name) for name in generator.adapters]
    return models


def require_model(container: Container, asked: str, *, loaded: str) -> None:
    """Raise ``NotFound`` naming the loaded models unless ``asked`` is ``loaded`` or ``auto``."""
    if asked in {AUTO, loaded}:
        return
    raise unknown_model(container, asked, suited=loaded)


def unknown_model(container: Container, asked: str, *, suited: str = "") -> NotFound:
    """Return the error for a model that does not answer here (or not to this kind of request)."""
    names = ", ".join(f"{model.id} ({model.role})" for model in loaded_models(container))
    return NotFound(
        f"model {asked[:120]!r} is not the one loaded for this; loaded: {names or 'none yet'}",
        hint=f"send model = {suited!r}" if suited else "see GET /v1/models",
        code="model_not_found",
        param="model",
    )

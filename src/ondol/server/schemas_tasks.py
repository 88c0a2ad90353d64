"""The request shape of tasks: the input as the task's own schema wants it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ondol.server.schemas import Body


class TaskBody(Body):
    """``POST /v1/tasks/{name}``."""

    input: dict[str, Any] = Field(description="What the task takes; see `GET /v1/tasks/{name}`.")

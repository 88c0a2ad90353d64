"""The request shapes of jobs: handing in, listing, reading results, resuming."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ondol.server.schemas import Body, Text


class JobOptions(Body):
    """How a job is to be worked."""

    priority: int = Field(
        0, ge=-100, le=100, description="Higher goes first among your own jobs; 0 is ordinary."
    )
    key: Text = Field(
        "",
        max_length=200,
        description="A name of your own: sent again with the same items it answers with the same job.",
    )


class JobBody(Body):
    """``POST /v1/jobs`` as JSON; an item that cannot be worked fails alone."""

    task: Text = Field(description="A task of `GET /v1/tasks`.")
    items: list[Any] = Field(
        description='Objects {"id": "r1", "input": {…}}; the id may be left out.'
    )
    options: JobOptions = JobOptions()


class ResumeBody(Body):
    """``POST /v1/jobs/{id}/resume``."""

    failed: bool = Field(False, description="Also work again what failed.")


class SubmitQuery(BaseModel):
    """``POST /v1/jobs`` as JSON Lines: what is not in the lines."""

    model_config = ConfigDict(extra="forbid")

    task: str = ""
    priority: int = Field(0, ge=-100, le=100)
    key: str = Field("", max_length=200)


class ResultsQuery(BaseModel):
    """Which results, and how: those after the ordinal ``after``, at most ``limit``."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["jsonl", "csv"] = "jsonl"
    after: int = Field(-1, ge=-1, le=2**53)
    limit: int | None = Field(None, ge=1, le=2**31)
    status: Literal["done", "failed", "cancelled"] | None = None


class DeleteQuery(BaseModel):
    """``DELETE /v1/jobs/{id}``: cancel, or with ``purge`` remove a job that has ended."""

    model_config = ConfigDict(extra="forbid")

    purge: bool = False

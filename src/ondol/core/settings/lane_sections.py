"""The lanes: which service classes there are, and what each is allowed and promised.

A lane has a bounded queue, a limit on what runs at once, a promise (SLA) and a weight. The defaults
stand in one table; what the settings say of a lane overrides its row alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LaneName = Literal[
    "chat",
    "search",
    "consultation",
    "case_analysis",
    "structuring",
    "reviews",
    "embeddings",
    "rerank",
    "batch",
]

BATCH: LaneName = "batch"
"""The lane of bulk work: every other is interactive, that is, somebody waits for the answer."""


class EncoderLaneSettings(BaseModel):
    """A lane of encoder requests: what runs at once is up to the batches. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue: Annotated[int, Field(gt=0)] = Field(
        10, description="Most requests of this lane waiting. Beyond it: 429."
    )
    queue_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Longest wait of one request in this lane."
    )
    sla_ms: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="The lane's promise: first token (generation) or whole answer (others) within so "
        "many milliseconds; 0 promises nothing. Change to what your users were told.",
    )


class LaneSettings(EncoderLaneSettings):
    """A lane in front of the generator."""

    running: Annotated[int, Field(gt=0)] = Field(
        2, description="Requests of this lane running at once. Lower to leave room for others."
    )
    late: Literal["refuse", "serve"] = Field(
        "refuse",
        description="What becomes of a request that waiting would make miss the promise: refused at "
        "once with the time to come back, or served late.",
    )
    weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Share of the machine against the other lanes where all want more."
    )


def _lane(running: int, queue: int, sla_ms: float, weight: float, **more: Any) -> LaneSettings:
    return LaneSettings(running=running, queue=queue, sla_ms=sla_ms, weight=weight, **more)


class LanesSettings(BaseModel):
    """Every lane; a table such as ``[lanes.chat]`` overrides the keys it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chat: LaneSettings = Field(_lane(5, 25, 2000, 4.0), description="Chat, and `ask`.")
    search: LaneSettings = Field(
        _lane(4, 20, 2000, 4.0), description="Search, and what is generated for a search."
    )
    consultation: LaneSettings = Field(
        _lane(2, 10, 2000, 4.0), description="Legal consultation in plain language."
    )
    case_analysis: LaneSettings = Field(
        _lane(2, 10, 10_000, 2.0), description="Long analyses of a case."
    )
    structuring: LaneSettings = Field(_lane(3, 15, 5000, 2.0), description="Free text to fields.")
    reviews: LaneSettings = Field(_lane(4, 40, 10_000, 2.0), description="Analyses of reviews.")
    embeddings: EncoderLaneSettings = Field(
        EncoderLaneSettings(queue=512, sla_ms=1000),
        description="Embedding requests; what runs at once is up to the batches.",
    )
    rerank: EncoderLaneSettings = Field(
        EncoderLaneSettings(queue=128, sla_ms=1000),
        description="Rerank requests; what runs at once is up to the batches.",
    )
    batch: LaneSettings = Field(
        _lane(2, 100, 0, 0.5, queue_seconds=3600.0),
        description="Bulk work and jobs: goes last, is shed first.",
    )

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, data: Any) -> Any:
        """Let a partial table keep the other keys of its own lane's row."""
        if not isinstance(data, Mapping):
            return data
        rows: dict[str, Any] = dict(data)
        for name, said in rows.items():
            field = cls.model_fields.get(name)
            if field is not None and isinstance(said, Mapping):
                rows[name] = field.default.model_dump() | dict(said)
        return rows

    def promise_ms(self, name: str | None) -> float | None:
        """Return what the lane promises, ``None`` for nothing and for no lane."""
        return (self.lane(name).sla_ms or None) if name in LANES and name is not None else None

    def lane(self, name: str) -> LaneSettings:
        """Return the lane ``name``; ``KeyError`` where there is none."""
        if name not in LANES:
            raise KeyError(name)
        found: EncoderLaneSettings = getattr(self, name)
        if isinstance(found, LaneSettings):
            return found
        # For a generation that somebody sends in a lane of encoders.
        return LaneSettings(**found.model_dump(), running=64, late="serve", weight=4.0)


LANES: tuple[str, ...] = tuple(LanesSettings.model_fields)

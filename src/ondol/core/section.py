"""What every section of the settings is made of: a frozen base, and the kinds of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
FormName = Annotated[
    str, Field(pattern=r"^(auto|[a-z][a-z-]*:[a-z0-9_-]+(@[a-z0-9]+)?(\+trimmed)?)$")
]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

"""The shape of ``pack.toml``: which keys there are and of what kind; unknown keys are errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ondol.services.tasks.declaration import LANGUAGES, Problem

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_Texts = Mapping[str, str]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitsTable(_Table):
    """``[tasks.NAME.limits]``."""

    max_items: int = Field(2_000, gt=0, le=100_000)
    max_chars: int = Field(1_000_000, gt=0, le=50_000_000)
    prompt_tokens: int = Field(1_500, gt=0, le=32_000)
    answer_tokens: int = Field(300, gt=0, le=4_000)
    seconds: float = Field(120.0, gt=0, le=86_400)


class EntriesTable(_Table):
    """``[tasks.NAME.entries]``."""

    field: str
    marker: Annotated[str, Field(pattern=r"^[a-z]$")] = "r"
    split: Literal["none", "sentences"] = "none"


class TaskTable(_Table):
    """``[tasks.NAME]``."""

    title: _Texts
    lane: str
    input: str
    output: str
    notice: _Texts = Field(default_factory=dict)
    limits: LimitsTable = LimitsTable()
    entries: EntriesTable | None = None
    steps: list[dict[str, Any]] = Field(min_length=1, max_length=32)


class PackTable(_Table):
    """The whole file."""

    name: _Name
    version: str
    title: _Texts
    languages: list[Literal["ko", "en"]] = Field(min_length=1)
    tasks: dict[str, TaskTable] = Field(min_length=1)


def strange_languages(texts: Mapping[str, str]) -> list[str]:
    """Return the languages of a table of texts that are none of ours."""
    return sorted(set(texts) - set(LANGUAGES))


def shape_problems(file: str, error: ValidationError, *, at: str = "") -> Iterator[Problem]:
    """Yield a problem for everything pydantic found."""
    for one in error.errors():
        key = at + ".".join(str(part) for part in one["loc"])
        unknown = one["type"] == "extra_forbidden"
        rule = (
            "the key is unknown" if unknown else f"{one['msg']} (it is {str(one['input'])[:60]!r})"
        )
        remedy = "take it out, or mend its spelling" if unknown else "see docs/guides/packs.md"
        yield Problem(file, key.rstrip("."), rule, remedy)

"""What all request bodies share: strict types, no unknown fields, text without NUL.

An unknown field is an error that names it and the nearest known one; nothing a caller sends is
ignored in silence.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ondol.core.errors import InvalidInput


def _without_nul(text: str) -> str:
    return text.replace("\x00", "")


Text = Annotated[str, AfterValidator(_without_nul)]
"""A text as callers send it; NUL characters, which mean nothing in a text, are taken out."""

Count = Annotated[int, Field(gt=0, le=1_000_000)]


class Body(BaseModel):
    """Base of all request bodies.

    ``synonyms`` maps other spellings of a field to ours; both at once are an error.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    synonyms: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _only_known_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = dict(data)
        for other, ours in cls.synonyms.items():
            if other in kept:
                if ours in kept:
                    raise InvalidInput(
                        f"both {ours} and {other} came, they mean the same",
                        hint=f"send {ours} alone",
                        code="duplicate_field",
                        param=other,
                    )
                kept[ours] = kept.pop(other)
        known = cls._names()
        for name in [name for name in kept if name not in known]:
            if not cls.drops(name, kept.pop(name)):
                raise cls._unknown(name)
        return kept

    @classmethod
    def drops(cls, name: str, value: Any) -> bool:
        """Whether a field that is not ours may be left aside; says no unless overridden."""
        return False

    @classmethod
    def _names(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def _unknown(cls, name: str) -> InvalidInput:
        shown = name[:80]
        near = difflib.get_close_matches(shown, [*cls._names(), *cls.synonyms], n=1)
        known = ", ".join(cls._names())
        return InvalidInput(
            f"{shown!r} is not a field of this request",
            hint=f"did you mean {near[0]!r}?" if near else f"the fields are {known}",
            code="unknown_field",
            param=shown,
        )

"""What bodies in OpenAI's shape share, and the one of embeddings; chat is in ``schemas_chat``.

A field of OpenAI's that we do not support is let through only with a value that changes nothing
(``n=1``); any other value, and any field OpenAI does not define, is an error naming it.
Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from ondol.core.errors import InvalidInput
from ondol.core.types import TextRole
from ondol.server.schemas import Body, Count, Text

ANY = object()
"""In a ``neutral`` table: every value of this field changes nothing here."""


class OpenAIBody(Body):
    """A body in OpenAI's shape. ``neutral``: unsupported field → the values that change nothing."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @classmethod
    def drops(cls, name: str, value: Any) -> bool:
        allowed = cls.neutral.get(name)
        if allowed is None:
            return False
        if value is None or ANY in allowed or any(_same(value, other) for other in allowed):
            return True
        remedy = f"leave it out or send {allowed[0]!r}" if allowed else "leave it out"
        raise InvalidInput(
            f"{name} = {str(value)[:80]!r} is not supported by this server",
            hint=remedy,
            code="unsupported_parameter",
            param=name,
        )


class EmbeddingsBody(OpenAIBody):
    """``POST /v1/embeddings``. ``input_type`` and ``truncate`` are ours."""

    neutral: ClassVar = {"user": (ANY,)}
    synonyms: ClassVar = {"role": "input_type"}

    model: Text
    input: Annotated[
        Any,
        Field(
            description="A text, a list of texts, a list of token ids, or a list of such lists.",
            json_schema_extra={
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "array", "items": {"type": "integer"}},
                    {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                ]
            },
        ),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    input_type: TextRole = Field(
        "document", description="'query' for questions, 'document' for what is searched."
    )
    truncate: bool = Field(False, description="Cut too long texts instead of refusing them.")

    @property
    def texts(self) -> list[str] | None:
        """The texts to embed, or None when token ids came."""
        if isinstance(self.input, str):
            return [self.input]
        return self.input if isinstance(self.input[0], str) else None

    @property
    def token_ids(self) -> list[list[int]]:
        """The token ids to embed; empty when texts came."""
        if isinstance(self.input, str) or isinstance(self.input[0], str):
            return []
        return [self.input] if isinstance(self.input[0], int) else self.input

    @field_validator("input")
    @classmethod
    def _one_kind(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\x00", "")
        if not isinstance(value, list) or not value:
            came = "an empty list" if value == [] else type(value).__name__
            raise InvalidInput(
                f"input is {came}, it must be a text or a list of texts or token ids",
                hint="send at least one text",
                code="empty_input" if value == [] else "invalid_input",
                param="input",
            )
        kind = type(value[0])
        if kind is str:
            return [_item(item, index, str).replace("\x00", "") for index, item in enumerate(value)]
        if kind is list:
            return [_ids(_item(item, index, list), index) for index, item in enumerate(value)]
        return [_token(item, f"input[{index}]") for index, item in enumerate(value)]


def _same(value: Any, other: Any) -> bool:
    """Equal and of one kind, so that ``True`` is no ``1``; 0 and 0.0 are one kind."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    return bool(value == other)


def _item(item: Any, index: int, kind: type) -> Any:
    if type(item) is not kind:
        wanted = "a text" if kind is str else "a list of token ids"
        raise InvalidInput(
            f"input[{index}] is {type(item).__name__}, the items before it are each {wanted}",
            hint="send one kind of input per request",
            param=f"input[{index}]",
        )
    return item


def _ids(ids: list[Any], index: int) -> list[int]:
    if not ids:
        raise InvalidInput(
            f"input[{index}] is an empty list",
            hint="send at least one token id",
            code="empty_input",
            param=f"input[{index}]",
        )
    return [_token(item, f"input[{index}][{place}]") for place, item in enumerate(ids)]


def _token(item: Any, param: str) -> int:
    if type(item) is not int or not 0 <= item < 2**31:
        raise InvalidInput(
            f"{param} is {str(item)[:40]!r}, it must be a text or a token id",
            hint="send texts, or integers from 0",
            param=param,
        )
    return item

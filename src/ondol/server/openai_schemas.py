"""What bodies in OpenAI's shape share, and the one of embeddings; chat is in ``schemas_chat``.

A field of OpenAI's that we do not support is let through only with a value that changes nothing
(``n=1``); any other value, and any field OpenAI does not define, is an error naming it.
Source: https://platform.openai.com/docs/api-reference

The body of a chat completion in OpenAI's shape, and how it becomes a ``GenerationRequest``.

Messages are texts or text parts; what the model cannot see, or we cannot do, is refused by name.
Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from ondol.core.errors import InvalidInput
from ondol.core.types import GenerationRequest, Message, TextRole
from ondol.server.schemas import Count, Items, RequestBody, Text

ANY = object()
"""In a ``neutral`` table: every value of this field changes nothing here."""


class OpenAIBody(RequestBody):
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


_MAX_STOPS = 16


class TextPart(OpenAIBody):
    """One part of a message's content; only text can be read here."""

    type: Literal["text"]
    text: Text


class ChatMessage(OpenAIBody):
    """One message. Parts of text are joined; what the model cannot see is refused."""

    neutral: ClassVar = {"refusal": (), "annotations": ([],), "audio": (), "function_call": ()}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Items[TextPart] | None = None
    name: Text | None = Field(None, description="Only beside role 'tool', where it repeats the id.")
    tool_calls: Items[dict[str, Any]] | None = None
    tool_call_id: Text | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _text_or_parts(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        if not isinstance(value, list):
            raise InvalidInput(
                f"a message's content is {type(value).__name__}, it must be a text or text parts",
                hint="send content as a string",
                param="messages",
            )
        for part in value:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if kind != "text":
                raise InvalidInput(
                    f"a message holds a part of type {str(kind)[:40]!r}, only 'text' can be read",
                    hint="send text parts only",
                    code="unsupported_content",
                    param="messages",
                )
        return value

    def to_message(self, *, param: str) -> Message:
        """Return the message for the generator; raises ``InvalidInput`` for one without content."""
        if self.name is not None and self.role != "tool":
            raise InvalidInput(
                f"{param}.name is not supported for role {self.role!r}",
                hint="put the name into the content",
                code="unsupported_parameter",
                param=f"{param}.name",
            )
        if self.content is None and not self.tool_calls:
            raise InvalidInput(
                f"{param} has no content", hint="send some text", param=f"{param}.content"
            )
        parts = self.content if isinstance(self.content, list) else []
        joined = "".join(part.text for part in parts)
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=self.content if isinstance(self.content, str) else joined,
            tool_calls=tuple(self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
        )


class StreamOptions(OpenAIBody):
    """``include_usage`` adds a last chunk with the token counts."""

    neutral: ClassVar = {"include_obfuscation": (False,)}

    include_usage: bool | None = None


class JsonSchema(OpenAIBody):
    """A named JSON schema; output is always constrained to it, so ``strict`` changes nothing."""

    neutral: ClassVar = {"description": (ANY,), "strict": (ANY,)}

    name: Text | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(OpenAIBody):
    """How the answer must look."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def schema_for_generator(self) -> dict[str, Any] | None:
        """Return the JSON schema that constrains the output, or None for free text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.json_schema is None or self.json_schema.schema_ is None:
            raise InvalidInput(
                "response_format.type is 'json_schema' and no schema came",
                hint="send response_format.json_schema.schema",
                code="missing_field",
                param="response_format.json_schema.schema",
            )
        return self.json_schema.schema_


class ChatBody(OpenAIBody):
    """``POST /v1/chat/completions``. ``cache_salt`` is ours: it keeps prompt caches apart."""

    neutral: ClassVar = {
        "user": (ANY,),
        "metadata": (ANY,),
        "safety_identifier": (ANY,),
        "prompt_cache_key": (ANY,),
        "prompt_cache_retention": (ANY,),
        "prompt_cache_options": (ANY,),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "n": (1,),
        "logprobs": (False,),
        "top_logprobs": (0,),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "modalities": (["text"],),
        "parallel_tool_calls": (True,),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "audio": (),
        "function_call": (),
        "functions": (),
        "moderation": (),
        "prediction": (),
        "web_search_options": (),
    }

    model: Text
    messages: Items[ChatMessage]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Items[Text] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: Items[dict[str, Any]] | None = None
    tool_choice: Any = Field(None, description="'auto', 'none', 'required', or a named function.")
    cache_salt: Text = ""

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def to_request(self, *, most_tokens: int) -> GenerationRequest:
        """Return the generation request; ``most_tokens`` is both default and limit of the answer.

        Sampling defaults to greedy (``temperature`` 0), which differs from OpenAI's 1.
        """
        self._check(most_tokens)
        asked = self.max_completion_tokens or self.max_tokens
        return GenerationRequest(
            messages=[
                message.to_message(param=f"messages[{index}]")
                for index, message in enumerate(self.messages)
            ],
            max_tokens=asked or most_tokens,
            temperature=self.temperature if self.temperature is not None else 0.0,
            top_p=self.top_p if self.top_p is not None else 1.0,
            seed=self.seed,
            stop=tuple(self.stop or ()),
            json_schema=self.response_format.schema_for_generator()
            if self.response_format
            else None,
            tools=tuple(self.tools or ()),
            tool_choice=self.tool_choice,
            cache_salt=self.cache_salt,
        )

    def _check(self, most_tokens: int) -> None:
        if not self.messages:
            raise InvalidInput(
                "messages is empty",
                hint="send at least one message",
                code="empty_input",
                param="messages",
            )
        asked = self.max_completion_tokens or self.max_tokens
        if asked is not None and asked > most_tokens:
            raise InvalidInput(
                f"max_tokens = {asked}, the limit is {most_tokens}",
                hint="ask for fewer tokens, or raise generation.max_tokens",
                code="too_many_tokens",
                param="max_completion_tokens" if self.max_completion_tokens else "max_tokens",
            )
        if self.stop is not None and (len(self.stop) > _MAX_STOPS or "" in self.stop):
            raise InvalidInput(
                f"stop holds {len(self.stop)} texts, it takes up to {_MAX_STOPS}, none empty",
                hint="send fewer stop texts",
                param="stop",
            )
        if self.stream_options is not None and not self.stream:
            raise InvalidInput(
                "stream_options came without stream = true",
                hint="send stream = true, or leave stream_options out",
                param="stream_options",
            )

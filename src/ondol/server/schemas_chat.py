"""The body of a chat completion in OpenAI's shape, and how it becomes a ``GenerationRequest``.

Messages are texts or text parts; what the model cannot see, or we cannot do, is refused by name.
Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from ondol.core.errors import InvalidInput
from ondol.core.types import GenerationRequest, Message
from ondol.server.schemas import Count, Text
from ondol.server.schemas_openai import ANY, OpenAIBody

_MAX_STOPS = 16


class TextPart(OpenAIBody):
    """One part of a message's content; only text can be read here."""

    type: Literal["text"]
    text: Text


class ChatMessage(OpenAIBody):
    """One message. Parts of text are joined; what the model cannot see is refused."""

    neutral: ClassVar = {"refusal": (), "annotations": ([],), "audio": (), "function_call": ()}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    name: Text | None = Field(None, description="Only beside role 'tool', where it repeats the id.")
    tool_calls: list[dict[str, Any]] | None = None
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
    messages: list[ChatMessage]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: list[Text] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
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

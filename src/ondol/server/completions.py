"""How a chat answer looks in OpenAI's shape: whole, or chunk by chunk.

Pure functions of generation events; ``timings`` stands beside OpenAI's fields.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ondol.core.events import Timing
from ondol.core.types import (
    DoneEvent,
    FinishReason,
    GenerationEvent,
    TokenEvent,
    ToolCallEvent,
    Usage,
)
from ondol.runtime.generation.chat import Completion

_FINISH: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "cancelled": "length",
    "tool_calls": "tool_calls",
}


@dataclass(frozen=True, slots=True)
class ChatShape:
    """What stays the same over all chunks of one answer; ``created`` is Unix seconds."""

    model: str
    created: int
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")

    def completion(self, completion: Completion, *, timing: Timing) -> dict[str, Any]:
        """Return a whole answer."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": completion.text or (None if completion.tool_calls else ""),
            "refusal": None,
        }
        if completion.tool_calls:
            message["tool_calls"] = [dict(call) for call in completion.tool_calls]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": _FINISH[completion.finish_reason],
            "logprobs": None,
        }
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage_json(completion.usage),
            "timings": timings_json(timing),
        }

    def opening(self) -> dict[str, Any]:
        """Return the first chunk, which names the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def chunks(self, event: GenerationEvent, *, timing: Timing) -> list[dict[str, Any]]:
        """Return the chunks for one event; the last one carries usage when asked for."""
        match event:
            case TokenEvent(text):
                return [self._chunk({"content": text})]
            case ToolCallEvent(tool_calls):
                calls = [{"index": n, **call} for n, call in enumerate(tool_calls)]
                return [self._chunk({"tool_calls": calls})]
            case DoneEvent(finish_reason, usage):
                end = self._chunk({}, finish_reason=_FINISH[finish_reason])
                end["timings"] = timings_json(timing)
                if not self.include_usage:
                    return [end]
                total = {**self._chunk({}), "choices": [], "usage": usage_json(usage)}
                return [end, total]

    def _chunk(
        self, delta: Mapping[str, Any], *, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": finish_reason,
            "logprobs": None,
        }
        chunk: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
        }
        if self.include_usage:
            chunk["usage"] = None
        return chunk


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def timings_json(timing: Timing) -> dict[str, float]:
    """Return where a generation's time went, in milliseconds."""
    return {
        "queue_ms": timing.queue_ms,
        "prefill_ms": timing.prefill_ms,
        "ttft_ms": timing.ttft_ms,
        "decode_ms": timing.decode_ms,
        "total_ms": timing.total_ms,
    }

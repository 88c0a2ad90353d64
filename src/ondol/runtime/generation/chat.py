"""Chat with the generator: streamed, or gathered into one completion.

Owns nothing: requests go to the ``GenerationEngine``, which admits, queues and runs them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ondol.core.errors import BackendError, NotReady
from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.types import (
    DoneEvent,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TokenEvent,
    ToolCallEvent,
    Usage,
)


class ChatEngine(Protocol):
    """What chat needs of the generation engine."""

    def stream(
        self,
        request: GenerationRequest,
        *,
        terms: RequestTerms | None = None,
        timing: Timing | None = None,
    ) -> AsyncGenerator[GenerationEvent]: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer of the generator."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@asynccontextmanager
async def admitted(
    events: AsyncGenerator[GenerationEvent],
) -> AsyncIterator[AsyncIterator[GenerationEvent]]:
    """Start ``events`` and enter once its first event is there; leaving closes it.

    Until then a refusal, also one after a wait in the queue, is raised here, so that whoever
    streams can still answer with a status.
    """
    async with aclosing(events):
        first = await anext(events)

        async def following() -> AsyncIterator[GenerationEvent]:
            yield first
            async for event in events:
                yield event

        yield following()


class ChatService:
    """Streams or completes chats; raises ``NotReady`` when no generator is configured."""

    def __init__(self, engine: ChatEngine | None, *, model: str) -> None:
        self._engine = engine
        self._model = model

    @property
    def model(self) -> str:
        return self._model

    @property
    def available(self) -> bool:
        return self._engine is not None

    async def stream(
        self,
        request: GenerationRequest,
        *,
        terms: RequestTerms | None = None,
        timing: Timing | None = None,
    ) -> AsyncGenerator[GenerationEvent]:
        """Yield events until ``DoneEvent``; closing the generator frees the slot at once."""
        if self._engine is None:
            raise NotReady(
                "no generator is configured (generation.model = 'none')",
                retry_after=60,
                hint="set generation.model to 'auto' or a model id and start again",
                code="no_generator",
            )
        async with aclosing(self._engine.stream(request, terms=terms, timing=timing)) as events:
            async for event in events:
                yield event

    async def complete(
        self,
        request: GenerationRequest,
        *,
        terms: RequestTerms | None = None,
        timing: Timing | None = None,
    ) -> Completion:
        """Gather a whole chat."""
        pieces: list[str] = []
        calls: list[Mapping[str, Any]] = []
        async with aclosing(self.stream(request, terms=terms, timing=timing)) as events:
            async for event in events:
                match event:
                    case TokenEvent(text):
                        pieces.append(text)
                    case ToolCallEvent(tool_calls):
                        calls.extend(tool_calls)
                    case DoneEvent(finish_reason, usage):
                        return Completion("".join(pieces), finish_reason, usage, tuple(calls))
        raise BackendError("the generator ended without saying so", hint="see the log")

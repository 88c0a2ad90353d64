"""The frozen values that rooms hand to each other.

Owns the shapes of texts, encodings, generation, documents, hits and citations. Knows no model
library, no database and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ModelRole = Literal["embedder", "reranker", "generator"]
TextRole = Literal["query", "document"]
SearchMode = Literal["hybrid", "dense", "lexical"]
Reading = Literal["passage", "parent"]
"""What a hit is: the passage that was found, or what stands around it in its parent."""

FinishReason = Literal["stop", "length", "cancelled", "tool_calls"]

FloatMatrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pair:
    """A (query, document) pair for a reranker."""

    query: str
    document: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenised input: token ids and segment ids of equal length, special tokens included."""

    ids: Sequence[int]
    type_ids: Sequence[int]

    @property
    def tokens(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. ``tool_calls`` and ``tool_call_id`` pass through to the backend untouched."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: Sequence[Mapping[str, Any]] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a generator is asked for. ``temperature`` 0 is greedy; ``json_schema`` constrains output.

    ``adapter`` names one of the generator's LoRA adapters; empty is the model as it is.
    """

    messages: Sequence[Message]
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    json_schema: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    cache_salt: str = ""
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """True token counts as the engine reported them."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A piece of generated text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEvent:
    """Tool calls as the backend emitted them (OpenAI delta shape)."""

    tool_calls: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class DoneEvent:
    """The end of a generation: why, how many tokens, and the engine's own timings (milliseconds)."""

    finish_reason: FinishReason
    usage: Usage
    prefill_ms: float = 0.0
    decode_ms: float = 0.0


GenerationEvent = TokenEvent | ToolCallEvent | DoneEvent


@dataclass(frozen=True, slots=True)
class Page:
    """One page (or record) of a document's stored text: ``number`` is 1-based, offsets into ``text``."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A source turned to text. ``text`` is NFC; ``pages`` is empty where the format has none."""

    source: str
    title: str
    text: str
    pages: Sequence[Page] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    media_type: str = "text/plain"
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk before it is stored: character range into the document's text, and its page.

    ``parent`` is the range that may be read in its place, ``None`` where that is the chunk alone.
    """

    text: str
    start: int
    end: int
    page: int | None
    heading: str = ""
    parent: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; ``start``/``end`` are character offsets into the document's stored text.

    ``pages``: the stretches it is made of, each with its page, where it reads more than one chunk.
    """

    document: str
    chunk: int
    page: int | None
    start: int
    end: int
    score: float
    text: str
    title: str = ""
    heading: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    dense_score: float | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
    pages: Sequence[Page] = ()

    def page_at(self, offset: int) -> int | None:
        """Return the page of the stretch in which ``offset`` of the document's text stands."""
        before = [page.number for page in self.pages if page.start <= offset]
        return before[-1] if before else self.page


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote that stands verbatim at ``[start, end)`` of the document's stored text."""

    document: str
    page: int | None
    start: int
    end: int
    quote: str
    verified: bool
    marker: int = 0
    title: str = ""


OnProgress = Callable[[int, int], None]
"""Told how many of how many are done."""

OnStep = Callable[[int, int, str], None]
"""Told how many steps of how many are done, and what they are."""

OnNote = Callable[[str], None]
"""Told what is being done, in words for people."""

"""One run of one task, as it passes from step to step: a frozen value, replaced, never changed.

Holds the input, the entries with what was found out about them, the evidence by marker, the result so
far, and what the run cost and dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.types import FloatMatrix, Usage
from ondol.tasks.declaration import Language, Task


@dataclass(frozen=True, slots=True)
class Mention:
    """That an entry speaks of an aspect, how, and (``said``) in which clauses."""

    aspect: str
    polarity: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One of the many texts of an input: a review, or a sentence of a document.

    ``suspicious`` says that it reads like an order to the machine: it is used like any other, and the
    result says so.
    """

    id: str
    text: str
    marker: str
    start: int = 0
    end: int = 0
    label: str = ""
    score: float = 0.0
    by: str = ""
    suspicious: bool = False
    mentions: tuple[Mention, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskEvidence:
    """What a marker stands for: a review by ``id``, or a place in a document with its words."""

    marker: str
    text: str
    id: str = ""
    document: str = ""
    page: int | None = None
    start: int = 0
    end: int = 0
    title: str = ""
    collection: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> Any:
        """Return it as results hold it: an id, or document, page, offsets and quote."""
        if self.id:
            return self.id
        return {
            "document": self.document,
            "page": self.page,
            "start": self.start,
            "end": self.end,
            "quote": self.text,
            "title": self.title,
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Entries that belong together before the generator: an aspect with its markers."""

    key: str
    title: str
    polarity: str
    markers: tuple[str, ...]
    members: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskRun:
    """The state of a run. ``values`` fill templates; ``lines`` are the data of a prompt,
    ``shown`` the markers in them."""

    task: Task
    language: Language
    input: Mapping[str, Any]
    terms: RequestTerms
    timing: Timing
    entries: tuple[Entry, ...] = ()
    vectors: FloatMatrix | None = None
    groups: tuple[Group, ...] = ()
    chosen: tuple[int, ...] = ()
    evidence: Mapping[str, TaskEvidence] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    timings: Mapping[str, float] = field(default_factory=dict)
    dropped: int = 0
    warnings: tuple[str, ...] = ()
    model: str = ""

    def adding(self, **result: Any) -> TaskRun:
        """Return the run with more of its result."""
        return replace(self, result={**self.result, **result})

    def telling(self, **values: str) -> TaskRun:
        """Return the run with more fields for templates."""
        return replace(self, values={**self.values, **values})

    def warned(self, *warnings: str) -> TaskRun:
        """Return the run with more warnings, each once."""
        return replace(self, warnings=tuple(dict.fromkeys([*self.warnings, *warnings])))

    def spent(self, usage: Usage) -> TaskRun:
        """Return the run with more tokens used."""
        return replace(
            self,
            usage=Usage(
                self.usage.prompt_tokens + usage.prompt_tokens,
                self.usage.cached_tokens + usage.cached_tokens,
                self.usage.completion_tokens + usage.completion_tokens,
            ),
        )

"""What the store hands out and takes in: frozen values that touch no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ondol.core.chunk_options import ChunkOptions
from ondol.core.types import Page, Passage


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of documents searched together; ``created`` is Unix seconds.

    ``keywords`` is what it knows of words: see ``services.keywords``; ``calibration`` what was
    measured about searching it: see ``services.calibration``; ``chunking`` how its documents are
    cut, ``None`` where it was made before that was recorded.
    """

    name: str
    embedder: str
    dimensions: int
    created: float
    documents: int
    chunks: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    keywords: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    chunking: ChunkOptions | None = None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as kept. In listings ``text`` is empty and ``pages`` is ``()``.

    ``document`` is its public name, ``source`` its identity, ``chunks`` a count, ``characters``
    the length of the text, ``ingested`` Unix seconds.
    """

    document: str
    collection: str
    source: str
    title: str
    text: str
    pages: Sequence[Page]
    media_type: str
    metadata: Mapping[str, Any]
    digest: str
    chunks: int
    ingested: float
    characters: int
    container: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A stored chunk; ``text`` is exactly ``[start, end)`` of its document's text."""

    chunk: int
    document: str
    page: int | None
    start: int
    end: int
    text: str
    heading: str
    title: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A passage to store with its lexical tokens, in order, repetitions kept.

    ``indexed`` is the digest of what was embedded for it, ``None`` where nobody keeps it.
    """

    passage: Passage
    tokens: Sequence[str]
    indexed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of disagreement: what, where, and how many rows or files it concerns."""

    kind: str
    where: str
    count: int


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What the store holds and what is wrong with it.

    ``stale_files`` are collections whose vector file is missing or outdated: harmless, for it is
    rebuilt from the database when needed. ``incomplete`` are sources to ingest again.
    """

    collections: int
    documents: int
    chunks: int
    problems: tuple[Problem, ...]
    stale_files: tuple[str, ...]
    incomplete: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.incomplete

    def __str__(self) -> str:
        faults = [f"{p.count} x {p.kind} ({p.where})" for p in self.problems]
        if self.incomplete:
            some = ", ".join(self.incomplete[:5])
            faults.append(f"{len(self.incomplete)} to ingest again: {some}")
        held = f"{self.collections} collections, {self.documents} documents, {self.chunks} chunks"
        return "; ".join([held, *faults])

"""What an ingest did, and how far it is while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ondol.core.chunk_options import ChunkOptions
from ondol.documents.ingest_passages import recipe
from ondol.language.dictionary import Dictionary


@dataclass(frozen=True, slots=True)
class IngestFailure:
    """One source that was not taken in, why, and the remedy."""

    source: str
    code: str
    error: str
    hint: str


@dataclass(slots=True)
class IngestReport:
    """What an ingest did; counts are documents, ``chunks`` are those stored now.

    ``embedded`` of them are new; the others kept the vector that their text had already.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[IngestFailure] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far an ingest is; ``source`` is the file in hand."""

    done_files: int
    total_files: int
    bytes_done: int
    bytes_total: int
    documents: int
    chunks: int
    source: str


Progress = Callable[[IngestProgress], None]


class IngestRun:
    """One ingest in progress: its report and how far it is."""

    def __init__(
        self,
        collection: str,
        started: float,
        *,
        chunking: ChunkOptions,
        model: str,
        dictionary: Dictionary,
    ) -> None:
        self.collection = collection
        self.started = started
        self.chunking = chunking
        self.dictionary = dictionary
        self.recipe = recipe(chunking, model)
        self.report = IngestReport()
        self.storing: asyncio.Task[None] | None = None
        self._files: dict[Path, int] = {}
        self._bytes = 0
        self._done: set[Path] = set()
        self._done_bytes = 0
        self._progress: Progress | None = None
        self._current = ""

    async def stored(self) -> None:
        """Wait until the group in flight is stored; raises what storing it raised."""
        storing, self.storing = self.storing, None
        if storing is not None:
            await storing

    def plan(self, files: Sequence[Path], progress: Progress | None) -> None:
        self._files = {path: path.stat().st_size if path.exists() else 0 for path in files}
        self._bytes = sum(self._files.values())
        self._progress = progress

    def advance(self, path: Path) -> None:
        if path not in self._done:
            self._done.add(path)
            self._done_bytes += self._files.get(path, 0)
        self._current = path.name
        self.tell()

    def tell(self) -> None:
        if self._progress is None:
            return
        report = self.report
        self._progress(
            IngestProgress(
                done_files=len(self._done),
                total_files=len(self._files),
                bytes_done=self._done_bytes,
                bytes_total=self._bytes,
                documents=report.added + report.updated + report.unchanged,
                chunks=report.chunks,
                source=self._current,
            )
        )

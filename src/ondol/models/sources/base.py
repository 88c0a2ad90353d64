"""What a place that has model files must be able to do.

A source hands over bytes and checks nothing: hashing, renaming and retrying elsewhere belong to
``ondol.models.download``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from ondol.models.catalogue import ModelFile, SourceKind

Report = Callable[[int], None]
"""Told how much of a file has arrived so far, in bytes of the file itself."""

CHUNK_BYTES = 1 << 20


class FileSource(Protocol):
    """One place. ``offers`` is quick and touches no network; ``chunks`` may take minutes.

    ``chunks`` yields the file's bytes in order and raises ``DownloadFailed`` (or an ``OSError`` of
    the disk) when it cannot.
    """

    @property
    def kind(self) -> SourceKind: ...
    def offers(self, model_id: str, file: ModelFile) -> bool: ...
    def describe(self, model_id: str, file: ModelFile) -> str: ...
    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]: ...


def read_chunks(path: Path, *, report: Report) -> Iterator[bytes]:
    """Yield a file on disk in pieces, reporting as it goes."""
    done = 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece
            done += len(piece)
            report(done)

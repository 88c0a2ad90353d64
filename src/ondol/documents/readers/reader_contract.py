"""What every reader takes and gives: a named source, limits, and documents or failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from ondol.core.errors import ReadError
from ondol.core.types import ReadDocument


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How large a source may be: bytes, PDF pages, characters of one document, seconds of one file.

    ``seconds`` is enforced by ``IsolatedReader``; in-process reading cannot be interrupted. ``ocr``
    says whether scanned pages are recognised, in which languages, and for how long each.
    """

    max_file_bytes: int = 200 * 1024 * 1024
    max_pages: int = 5000
    max_chars: int = 20_000_000
    seconds: float = 120.0
    ocr: Literal["off", "tesseract"] = "off"
    ocr_languages: str = "kor+eng"
    ocr_page_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """A source, or one record of it, that could not be read. ``error.code`` says why."""

    source: str
    error: ReadError


ReadItem = ReadDocument | ReadFailure
ReadItems = Iterator[ReadItem]


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """The bytes of one file and the name they are reported under (a path or an upload's name)."""

    name: str
    data: bytes

    @property
    def extension(self) -> str:
        """Return the extension in lower case, with its dot."""
        return PurePath(self.name).suffix.lower()

    @property
    def stem(self) -> str:
        """Return the file name without folders and extension: the title of last resort."""
        return PurePath(self.name).stem


def failed(source: str, code: str, message: str, *, hint: str) -> ReadFailure:
    """Return a failure for ``source`` with a stable ``code``."""
    return ReadFailure(source, ReadError(message, code=code, hint=hint, param=source))


def too_many_chars(source: str, chars: int, limits: ReadLimits) -> ReadFailure:
    """Return the failure of a document whose text exceeds the limit."""
    return failed(
        source,
        "too_large",
        f"{source!r} holds {chars:,} characters or more; one document may hold {limits.max_chars:,}",
        hint="Split it, or raise `ingest.max_chars`.",
    )


def no_text(source: str) -> ReadFailure:
    """Return the failure of a file that was read but says nothing."""
    return failed(
        source, "empty", f"{source!r} holds no text", hint="Check that it is the right file."
    )

"""Reads a file or upload into documents: PDF, HWP, DOCX, EPUB, HTML, Markdown, text, records.

The bytes decide the format, then the extension. Every failure is an item naming its source, never
an exception, so that one bad file or record stops nothing. ``IsolatedReader`` does the same in a
child process with limits on time and memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ondol.core.errors import ReadError
from ondol.documents.readers.docx import read_docx
from ondol.documents.readers.epub import read_epub
from ondol.documents.readers.html import read_html
from ondol.documents.readers.hwp import read_hwp
from ondol.documents.readers.json_records import read_json, read_jsonl, record_document
from ondol.documents.readers.pdf import read_pdf
from ondol.documents.readers.pdf_locate import Located, Rectangle, locate
from ondol.documents.readers.plain_text import read_markdown, read_plain
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadFailure,
    ReadItem,
    ReadItems,
    ReadLimits,
    failed,
)
from ondol.documents.readers.reader_process import IsolatedReader
from ondol.documents.readers.sniff import EXTENSIONS, Kind, kind_of
from ondol.documents.readers.tables import TablePlace, read_csv, table_place

__all__ = [
    "EXTENSIONS",
    "IsolatedReader",
    "Located",
    "ReadFailure",
    "ReadItem",
    "ReadItems",
    "ReadLimits",
    "Rectangle",
    "TablePlace",
    "locate",
    "read",
    "read_bytes",
    "record_document",
    "table_place",
]

_READERS: dict[Kind, Callable[..., ReadItems]] = {
    "pdf": read_pdf,
    "hwp": read_hwp,
    "docx": read_docx,
    "epub": read_epub,
    "text": read_plain,
    "markdown": read_markdown,
    "html": read_html,
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_csv,
}


def read(path: Path, *, limits: ReadLimits) -> ReadItems:
    """Yield every document of the file at ``path``, or what failed; sources carry ``str(path)``."""
    name = _printable(str(path))
    try:
        size = path.stat().st_size
        if size > limits.max_file_bytes:
            yield _too_many_bytes(name, size, limits)
            return
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        yield failed(
            name,
            "unreadable",
            f"{name!r} could not be opened: {reason}",
            hint="Check the path and its permissions; give files, not folders.",
        )
        return
    except MemoryError:
        yield _out_of_memory(name)
        return
    yield from read_bytes(data, name=name, limits=limits)


def read_bytes(data: bytes, *, name: str, limits: ReadLimits) -> ReadItems:
    """Yield every document of an upload called ``name``, or what failed."""
    name = _printable(name)
    if len(data) > limits.max_file_bytes:
        yield _too_many_bytes(name, len(data), limits)
        return
    source = DocumentSource(name, data)
    try:
        yield from _READERS[kind_of(source)](source, limits=limits)
    except ReadError as error:
        yield ReadFailure(name, error)
    except MemoryError:
        yield _out_of_memory(name)
    except Exception as error:  # third-party parsers on hostile bytes: one file, not the run
        yield failed(
            name,
            "unreadable",
            f"{name!r} broke its reader: {type(error).__name__}: {error}",
            hint="Open it with another program, save it again, and read that.",
        )


def _printable(name: str) -> str:
    """Return ``name`` as storable text: undecodable bytes of a path become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _too_many_bytes(name: str, size: int, limits: ReadLimits) -> ReadFailure:
    return failed(
        name,
        "too_large",
        f"{name!r} has {size:,} bytes; the limit is {limits.max_file_bytes:,}",
        hint="Split it, or raise `ingest.max_file_bytes`.",
    )


def _out_of_memory(name: str) -> ReadFailure:
    return failed(
        name,
        "too_large",
        f"reading {name!r} needs more memory than the reader may use",
        hint="Split it into smaller files.",
    )

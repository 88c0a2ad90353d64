"""PDF text by PDFium: pages with offsets; no script or form runs, and only OCR has pages drawn.

A file opens with the empty password or not at all. Scanned and garbled files are refused with what
was seen, never stored as an empty success. PDFium is not thread-safe: one document at a time.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from ondol.core.types import Page, ReadDocument
from ondol.documents.readers.pdf_layout import without_running_lines
from ondol.documents.readers.pdf_page import PageText, hint, read_page, recogniser
from ondol.documents.readers.plausible import hangul_shape
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadFailure,
    ReadItem,
    ReadItems,
    ReadLimits,
    failed,
    too_many_chars,
)
from ondol.language.normalise import normalise

SEPARATOR = "\n\n"

PDFIUM = threading.Lock()  # PDFium keeps global state
_NO_PAGES = re.compile(  # PDFium opens no document without pages and does not say why
    rb"<<[^<>]{0,200}/Type\s*/Pages\b[^<>]{0,200}/Count\s+0\b|<<[^<>]{0,200}/Count\s+0\b[^<>]{0,200}/Type\s*/Pages\b"
)
_LISTED = 12
_TITLE_CHARS = 120
_BAD_TITLE = re.compile(
    r"^(?:untitled|제목 ?없음|microsoft \w+ - .*|.*\.(?:docx?|hwpx?|pptx?|xlsx?|pdf|indd|qxd|tmp|dvi|rtf))$",
    re.I,
)
_CONTENTS = re.compile(r"(?:table of )?contents|목\s?차|차\s?례", re.I)


class _TooLong(Exception):
    """The text passed the limit at ``chars`` characters."""

    def __init__(self, chars: int) -> None:
        super().__init__(chars)
        self.chars = chars


def read_pdf(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield the document, or one failure.

    Codes: ``encrypted``, ``damaged``, ``empty``, ``image_only``, ``unreadable``,
    ``too_many_pages``, ``too_large``.
    """
    with PDFIUM:
        item = _read(source, limits)
    yield item


def opened(source: DocumentSource) -> pdfium.PdfDocument:
    """Return the open document; the caller holds ``PDFIUM`` and closes it.

    Raises ``ReadError``: ``encrypted``, ``damaged``, ``empty``.
    """
    try:
        return pdfium.PdfDocument(source.data)
    except pdfium.PdfiumError as error:
        raise _unopened(source).error from error


def _read(source: DocumentSource, limits: ReadLimits) -> ReadItem:
    document = opened(source)
    try:
        count = len(document)
        if count == 0:
            return _no_pages(source)
        if count > limits.max_pages:
            return failed(
                source.name,
                "too_many_pages",
                f"{source.name!r} has {count:,} pages; the limit is {limits.max_pages:,}",
                hint="Split it, or raise `ingest.max_pages`.",
            )
        pages = _page_texts(document, limits)
        title = str(document.get_metadata_dict().get("Title", ""))
    except _TooLong as error:
        return too_many_chars(source.name, error.chars, limits)
    finally:
        document.close()
    return _refusal(source, pages, limits) or _document(source, pages, title)


def _unopened(source: DocumentSource) -> ReadFailure:
    """Say why PDFium refused. Its error code may be stale, so it is asked twice after a reset."""
    code = None
    for data in (b"%PDF-", source.data):
        try:
            pdfium.PdfDocument(data).close()
        except pdfium.PdfiumError as error:
            code = error.err_code
    if code == raw.FPDF_ERR_PASSWORD:
        return failed(
            source.name,
            "encrypted",
            f"{source.name!r} is encrypted and needs a password",
            hint="Save a copy without a password and read that.",
        )
    if code == raw.FPDF_ERR_SECURITY:
        return failed(
            source.name,
            "encrypted",
            f"{source.name!r} is protected by an unsupported security handler",
            hint="Save a copy without protection and read that.",
        )
    if _NO_PAGES.search(source.data):
        return _no_pages(source)
    return failed(
        source.name,
        "damaged",
        f"{source.name!r} ({len(source.data):,} bytes) begins as a PDF but its structure is broken",
        hint="Fetch or export the file again; it may be cut off.",
    )


def _no_pages(source: DocumentSource) -> ReadFailure:
    return failed(
        source.name,
        "empty",
        f"{source.name!r} is a PDF with 0 pages",
        hint="Export it again with its pages.",
    )


def _page_texts(document: pdfium.PdfDocument, limits: ReadLimits) -> list[PageText]:
    pages: list[PageText] = []
    chars = 0
    scans = recogniser(limits)
    for index in range(len(document)):
        page = read_page(document, index, recogniser=scans)
        chars += len(page.text) + len(SEPARATOR)
        if chars > limits.max_chars:
            raise _TooLong(chars)
        pages.append(page)
    return pages


def _refusal(
    source: DocumentSource, pages: Sequence[PageText], limits: ReadLimits
) -> ReadFailure | None:
    """Return why these pages are no document, or ``None`` when they are one."""
    count = _pages(len(pages))
    if all(page.broken for page in pages):
        return failed(
            source.name,
            "damaged",
            f"{source.name!r} lists {count} but none can be opened",
            hint="Fetch or export the file again; it may be cut off.",
        )
    said = [page for page in pages if page.text and not page.scan]
    if not said and any(page.scan for page in pages):
        chars = sum(len(page.text) for page in pages)
        return failed(
            source.name,
            "image_only",
            f"{source.name!r} has {count} of images and almost no text ({chars} characters)",
            hint=hint(limits),
        )
    if not said:
        return failed(
            source.name,
            "empty",
            f"{source.name!r} has {count} and no text",
            hint="Check that it is the right file; a drawn page needs OCR.",
        )
    garbled = sum(len(page.text) for page in said if page.garbled)
    if garbled * 2 > sum(len(page.text) for page in said):
        return failed(
            source.name,
            "unreadable",
            f"the text of {source.name!r} ({count}) is garbled: its fonts map to wrong characters",
            hint="Print it to a new PDF or run OCR on it, and read that.",
        )
    return None


def _document(source: DocumentSource, pages: Sequence[PageText], title: str) -> ReadDocument:
    written = [page.text for page in pages]
    texts = without_running_lines(written)
    shorter = [one != other for one, other in zip(written, texts, strict=True)]
    placed: list[Page] = []
    at = 0
    for number, text in enumerate(texts, start=1):
        placed.append(Page(number, at, at + len(text)))
        at += len(text) + len(SEPARATOR)
    return ReadDocument(
        source=source.name,
        title=_title(title, texts) or source.stem,
        text=SEPARATOR.join(texts),
        pages=tuple(placed),
        media_type="application/pdf",
        warnings=_warnings(pages, shorter),
    )


def _title(named: str, texts: Sequence[str]) -> str:
    title = " ".join(normalise(named).split())
    if _names_something(title):
        return title
    for text in texts:
        for line in text.split("\n"):
            words = " ".join(line.split())
            if sum(map(str.isalpha, words)) > 1 and not _CONTENTS.fullmatch(words):
                return words[:_TITLE_CHARS]
    return ""


def _names_something(title: str) -> bool:
    if len(title) > 300 or _BAD_TITLE.match(title) or not title.isprintable():
        return False
    shape = hangul_shape(title)
    return any(character.isalpha() for character in title) and not shape.odd and not shape.garbled


def _warnings(pages: Sequence[PageText], shorter: Sequence[bool]) -> tuple[str, ...]:
    total = len(pages)
    found = (
        ("are images without a text layer", [page.scan for page in pages]),
        ("are images whose words OCR guessed", [page.recognised for page in pages]),
        ("could not be opened", [page.broken for page in pages]),
        ("have garbled text (wrong font maps)", [page.garbled for page in pages]),
    )
    warnings = [
        f"{sum(marks)} of {total} pages {what}: {_numbers(marks)}"
        for what, marks in found
        if any(marks)
    ]
    if any(shorter):
        where = f"{sum(shorter)} of {total} pages"
        warnings.append(f"repeated headers, footers and page numbers were left out on {where}")
    return tuple(warnings)


def _numbers(marks: Sequence[bool]) -> str:
    numbers = [number for number, marked in enumerate(marks, start=1) if marked]
    shown = ", ".join(map(str, numbers[:_LISTED]))
    return shown if len(numbers) <= _LISTED else f"{shown}, …"


def _pages(count: int) -> str:
    return "1 page" if count == 1 else f"{count:,} pages"

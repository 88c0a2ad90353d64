"""Any number of different PDFs from the shared ones: a few pages each, with words of their own.

A copy holds up to ``pages`` neighbouring pages of a shared PDF, later copies later pages, and on
every page one more line of random words, so that no two copies say the same. PDFium writes them.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from pathlib import Path

import pypdfium2 as pdfium
import pypdfium2.raw as raw

WORDS = tuple(
    f"{one}{other}"
    for one in ("am", "ce", "fjo", "lan", "wal")
    for other in ("ber", "dar", "rd", "tern", "nut")
)


def altered_pdfs(sources: list[Path], folder: Path, *, count: int, pages: int) -> list[Path]:
    """Write ``count`` PDFs into ``folder`` and return them; ``sources`` take turns."""
    written: list[Path] = []
    opened = [pdfium.PdfDocument(path.read_bytes()) for path in sources]
    for number, (source, document) in enumerate(_turns(sources, opened, count)):
        first = number // len(sources) * pages % len(document)
        copy = pdfium.PdfDocument.new()
        copy.import_pages(document, range(first, min(first + pages, len(document))))
        for at in range(len(copy)):
            page = copy[at]
            _write(copy, page, _line(number, at))
            page.close()
        path = folder / f"{number:04d}_{source.stem}.pdf"
        copy.save(path)
        copy.close()
        written.append(path)
    for document in opened:
        document.close()
    return written


def _turns(
    sources: list[Path], opened: list[pdfium.PdfDocument], count: int
) -> Iterator[tuple[Path, pdfium.PdfDocument]]:
    for number in range(count):
        yield sources[number % len(sources)], opened[number % len(sources)]


def _line(number: int, page: int) -> str:
    chance = random.Random(number * 1000 + page)
    return f"Copy {number}: {' '.join(chance.choices(WORDS, k=9))}."


def _write(document: pdfium.PdfDocument, page: pdfium.PdfPage, text: str) -> None:
    """Add one line of small print at the top of the page."""
    letters = raw.FPDFPageObj_NewTextObj(document, b"Helvetica", 8.0)
    encoded = text.encode("utf-16-le") + b"\0\0"
    buffer = (ctypes.c_ushort * (len(encoded) // 2)).from_buffer_copy(encoded)
    if not letters or not raw.FPDFText_SetText(letters, buffer):
        raise SystemExit("PDFium wrote no text")
    raw.FPDFPageObj_Transform(letters, 1, 0, 0, 1, 36, page.get_height() - 12)
    raw.FPDFPage_InsertObject(page, letters)
    page.gen_content()

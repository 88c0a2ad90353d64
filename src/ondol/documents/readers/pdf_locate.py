"""Where a quotation stands on a page of a PDF: rectangles to highlight, found when they are asked for.

Nothing of this is stored: the page is read again (a few milliseconds) and the words of the stored
text are looked up among its characters. Labels that a table row repeats are looked for in the row,
and left out where they stand only in the header.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pypdfium2 as pdfium

from ondol.core.errors import ReadError
from ondol.documents.readers.pdf import PDFIUM, opened
from ondol.documents.readers.pdf_glyphs import Glyphs
from ondol.documents.readers.reader_contract import DocumentSource
from ondol.documents.readers.tables import CELL
from ondol.language.normalise import normalise

_LABEL = ": "
_SAME_LEVEL = 0.4
_DROPPED = frozenset("-\ufffe|")  # hyphens of cut words, and marks that the reader adds


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box in page space: points, from the page's lower left corner."""

    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True, slots=True)
class Located:
    """The page's size in points, and one rectangle a line of what was found on it."""

    width: float
    height: float
    rectangles: tuple[Rectangle, ...]


@dataclass(frozen=True, slots=True)
class _Letters:
    """A page's characters without spaces and hyphens, and where each stands in its text."""

    said: str
    places: Sequence[int]


def locate(path: Path, *, page: int, quote: str) -> Located:
    """Return where ``quote``, stored text of page ``page`` (from 1), stands in the PDF at ``path``.

    Lines that are not found give no rectangle. Raises ``ReadError`` when the file cannot be opened
    as a PDF or has no such page.
    """
    try:
        source = DocumentSource(str(path), path.read_bytes())
    except OSError as error:
        raise ReadError(
            f"{str(path)!r} could not be opened: {error.strerror}",
            hint="Give the path of a PDF that can be read.",
            param=str(path),
        ) from error
    with PDFIUM:
        document = opened(source)
        try:
            return _on_page(document, source, page, quote)
        finally:
            document.close()


def _on_page(
    document: pdfium.PdfDocument, source: DocumentSource, number: int, quote: str
) -> Located:
    try:
        if not 1 <= number <= len(document):
            raise pdfium.PdfiumError("no such page")
        page = document[number - 1]
    except pdfium.PdfiumError as error:
        raise ReadError(
            f"page {number} of {source.name!r} cannot be opened ({len(document)} pages)",
            hint="Give a page that the file has.",
            param=source.name,
        ) from error
    try:
        layer = page.get_textpage()
        try:
            glyphs = Glyphs(layer, str(layer.get_text_range()))
            width, height = page.get_size()
            return Located(width, height, tuple(_rectangles(glyphs, quote)))
        finally:
            layer.close()
    finally:
        page.close()


def _rectangles(glyphs: Glyphs, quote: str) -> Iterator[Rectangle]:
    letters = _letters(glyphs.text)
    after = 0
    for line in quote.split("\n"):
        if CELL.strip() in line:
            yield from _row(glyphs, letters, line)
            continue
        found = _find(letters, line, after) or _find(letters, line, 0)
        if found is not None:
            after = found[1]
            yield from _boxes(glyphs, letters, found)


def _row(glyphs: Glyphs, letters: _Letters, line: str) -> Iterator[Rectangle]:
    """Yield the rectangles of a table row: its cells on the level of the first one, left to right."""
    last: Rectangle | None = None
    for cell in line.split(CELL.strip()):
        value = cell.partition(_LABEL)[2]
        for said in (cell, value) if value else (cell,):
            boxes = _on_level(glyphs, letters, said, last)
            if boxes:
                last = boxes[0]
                yield from boxes
                break


def _on_level(
    glyphs: Glyphs, letters: _Letters, said: str, last: Rectangle | None
) -> list[Rectangle]:
    """Return the boxes of ``said`` to the right of ``last``, or its first ones where none is given."""
    after = 0
    while (found := _find(letters, said, after)) is not None:
        boxes = list(_boxes(glyphs, letters, found))
        if boxes and (last is None or (_shared(boxes[0], last) and boxes[0].left > last.left)):
            return boxes
        after = found[0] + 1
    return []


def _letters(text: str) -> _Letters:
    kept = [at for at, character in enumerate(text) if _counts(character)]
    return _Letters("".join(text[at] for at in kept), kept)


def _counts(character: str) -> bool:
    return not character.isspace() and character not in _DROPPED


def _find(letters: _Letters, said: str, after: int) -> tuple[int, int] | None:
    """Return the first and last-but-one letters of ``said`` from letter ``after`` on."""
    wanted = "".join(filter(_counts, normalise(said)))
    if not wanted:
        return None
    at = letters.said.find(wanted, after)
    return None if at < 0 else (at, at + len(wanted))


def _boxes(glyphs: Glyphs, letters: _Letters, found: tuple[int, int]) -> Iterator[Rectangle]:
    """Yield one rectangle for each line that the letters stand on."""
    line: Rectangle | None = None
    for place in letters.places[found[0] : found[1]]:
        box = glyphs.box(place)
        if box is None:
            continue
        here = Rectangle(*box)
        if line is not None and _shared(line, here) and here.left >= line.left:
            line = Rectangle(
                line.left,
                min(line.bottom, here.bottom),
                max(line.right, here.right),
                max(line.top, here.top),
            )
        else:
            if line is not None:
                yield line
            line = here
    if line is not None:
        yield line


def _shared(one: Rectangle, other: Rectangle) -> bool:
    """Whether two boxes stand on the same level."""
    height = min(one.top - one.bottom, other.top - other.bottom)
    return min(one.top, other.top) - max(one.bottom, other.bottom) > _SAME_LEVEL * height

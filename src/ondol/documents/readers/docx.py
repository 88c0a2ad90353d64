"""DOCX by the standard library: paragraphs, headings, lists and tables in document order.

Text that was deleted under change tracking, field codes and the second copy of alternate content
are left out; footnotes and endnotes follow the text. Page headers and footers are not read.

The body of a DOCX: WordprocessingML events to blocks (ECMA-376 Part 1, chapter 17).

Keeps one paragraph and the open tables in memory. A table inside a cell becomes part of that
cell's text; text boxes become paragraphs of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from ondol.core.types import ReadDocument
from ondol.documents.readers.archive import Archive, damaged
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadItems,
    ReadLimits,
    no_text,
    too_many_chars,
)
from ondol.documents.readers.tables import Blocks, Cell, spread
from ondol.documents.readers.xml_events import Attributes, BadXml, parse_xml
from ondol.language.normalise import normalise

_SKIPPED = frozenset({"Fallback", "del", "moveFrom", "sectPr", "rPrChange", "pPrChange"})
_BREAKS = {"br": "\n", "cr": "\n", "tab": "\t", "noBreakHyphen": "-"}
_OFF = frozenset({"0", "false", "off"})


@dataclass(slots=True)
class _Paragraph:
    pieces: list[str] = field(default_factory=list)
    style: str = ""
    level: int | None = None
    listed: bool = False


@dataclass(slots=True)
class _Table:
    base: int  # paragraphs open around it: a text box may hold a table
    rows: list[list[Cell]] = field(default_factory=list)
    continued: list[list[bool]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    across: int = 1
    merged: bool = False
    header: bool = False


class DocxBody:
    """Writes one part of a document (body, footnotes) into ``blocks``."""

    def __init__(self, blocks: Blocks, levels: dict[str, int]) -> None:
        self._blocks = blocks
        self._levels = levels
        self._paragraphs: list[_Paragraph] = []
        self._tables: list[_Table] = []
        self._skipping = 0
        self._in_text = False

    def read(self, data: bytes) -> None:
        """Read the part ``data``. Raises ``BadXml``."""
        parse_xml(data, start=self._start, end=self._end, text=self._text)

    def _start(self, name: str, given: Attributes) -> None:
        if self._skipping or name in _SKIPPED:
            self._skipping += 1
        elif name == "p":
            self._paragraphs.append(_Paragraph())
        elif name == "t":
            self._in_text = True
        elif name == "tbl":
            self._tables.append(_Table(len(self._paragraphs)))
        elif self._tables and len(self._paragraphs) == self._tables[-1].base:
            self._in_table(self._tables[-1], name, given)
        elif self._paragraphs:
            self._in_paragraph(self._paragraphs[-1], name, given)

    def _in_paragraph(self, paragraph: _Paragraph, name: str, given: Attributes) -> None:
        if name in _BREAKS:
            paragraph.pieces.append(_BREAKS[name])
        elif name == "pStyle":
            paragraph.style = given.get("val", "")
        elif name == "numId":
            paragraph.listed = given.get("val") != "0"
        elif name == "outlineLvl":
            value = given.get("val", "")
            paragraph.level = int(value) + 1 if value.isdecimal() and int(value) < 9 else None

    @staticmethod
    def _in_table(table: _Table, name: str, given: Attributes) -> None:
        value = given.get("val", "")
        if name == "tr":
            table.rows.append([])
            table.continued.append([])
        elif name == "tc":
            table.words, table.across, table.merged = [], 1, False
        elif name == "gridSpan":
            table.across = int(value) if value.isdecimal() and len(value) < 5 else 1
        elif name == "vMerge":
            table.merged = value != "restart"
        elif name == "tblHeader" and len(table.rows) == 1:
            table.header = value not in _OFF

    def _end(self, name: str) -> None:
        if self._skipping:
            self._skipping -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p" and self._paragraphs:
            self._close_paragraph(self._paragraphs.pop())
        elif name == "tc" and self._tables and self._tables[-1].rows:
            table = self._tables[-1]
            table.rows[-1].append(Cell(" ".join(table.words), across=table.across))
            table.continued[-1].append(table.merged)
        elif name == "tbl" and self._tables:
            self._close_table(self._tables.pop())

    def _text(self, words: str) -> None:
        if self._in_text and not self._skipping and self._paragraphs:
            self._paragraphs[-1].pieces.append(words)

    def _close_paragraph(self, paragraph: _Paragraph) -> None:
        text = "".join(paragraph.pieces).strip()
        level = paragraph.level or self._levels.get(paragraph.style)
        if self._tables:
            self._tables[-1].words.append(text)
        elif level is not None:
            self._blocks.heading(text, level)
        elif paragraph.listed:
            self._blocks.item(text)
        else:
            self._blocks.paragraph(text, apart=True)

    def _close_table(self, table: _Table) -> None:
        rows = _merged_down(table)
        if self._tables:
            said = (cell.text for row in rows for cell in row)
            self._tables[-1].words.append(" ".join(said))
        else:
            self._blocks.table(spread(rows), header=table.header)


def _merged_down(table: _Table) -> list[list[Cell]]:
    """Give the cells that continue the one above its text: a row must stand alone."""
    above: dict[int, str] = {}
    rows: list[list[Cell]] = []
    for row, continued in zip(table.rows, table.continued, strict=True):
        column = 0
        filled: list[Cell] = []
        for cell, goes_on in zip(row, continued, strict=True):
            kept = replace(cell, text=above.get(column, "")) if goes_on else cell
            above[column] = kept.text
            filled.append(kept)
            column += max(1, cell.across)
        rows.append(filled)
    return rows


MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_MAIN = "word/document.xml"
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_HEADING_NAME = re.compile(r"(?:heading|제목|개요)\s*([1-9])", re.I)
_TITLE_CHARS = 120


def read_docx(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield the document, or a failure: ``empty``, ``too_large``.

    Raises ``ReadError``: ``damaged``, ``encrypted``, ``too_large`` (what it unpacks to).
    """
    archive = Archive(source, limits=limits)
    blocks = Blocks()
    try:
        levels = _heading_levels(archive.read("word/styles.xml"))
        DocxBody(blocks, levels).read(archive.need(_MAIN))
        for name in _NOTES:
            notes = archive.read(name)
            if notes is not None:
                DocxBody(blocks, {}).read(notes)
        title = _title(archive.read("docProps/core.xml"))
    except BadXml as error:
        raise damaged(source, str(error)) from error
    text = blocks.text()
    if len(text) > limits.max_chars:
        yield too_many_chars(source.name, len(text), limits)
    elif not text:
        yield no_text(source.name)
    else:
        yield ReadDocument(
            source=source.name,
            title=title or blocks.title[:_TITLE_CHARS] or source.stem,
            text=text,
            media_type=MEDIA_TYPE,
        )


def _heading_levels(data: bytes | None) -> dict[str, int]:
    """Return style id → heading level: by outline level, else by the style's name."""
    levels: dict[str, int] = {}
    style = ""

    def start(name: str, given: Attributes) -> None:
        nonlocal style
        value = given.get("val", "")
        if name == "style":
            style = given.get("styleId", "")
        elif name == "name" and style:
            named = _HEADING_NAME.fullmatch(value.strip())
            if named:
                levels[style] = int(named[1])
            elif value.strip().lower() == "title":
                levels[style] = 1
        elif name == "outlineLvl" and style and value.isdecimal() and int(value) < 9:
            levels[style] = int(value) + 1

    def end(name: str) -> None:
        nonlocal style
        if name == "style":
            style = ""

    if data is not None:
        parse_xml(data, start=start, end=end, text=lambda _: None)
    return levels


def _title(data: bytes | None) -> str:
    """Return the title of the core properties, or ``""``."""
    found: list[str] = []
    inside = False

    def start(name: str, given: Attributes) -> None:
        nonlocal inside
        inside = name == "title"

    def end(name: str) -> None:
        nonlocal inside
        inside = False

    def text(words: str) -> None:
        if inside:
            found.append(words)

    if data is not None:
        parse_xml(data, start=start, end=end, text=text)
    return " ".join(normalise("".join(found)).split())[:_TITLE_CHARS]

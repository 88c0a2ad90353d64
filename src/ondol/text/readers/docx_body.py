"""The body of a DOCX: WordprocessingML events to blocks (ECMA-376 Part 1, chapter 17).

Keeps one paragraph and the open tables in memory. A table inside a cell becomes part of that
cell's text; text boxes become paragraphs of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ondol.text.readers.blocks import Blocks
from ondol.text.readers.table_rows import Cell, spread
from ondol.text.readers.xml_events import Attributes, parse_xml

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


class Body:
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

"""CSV and TSV: each row below a header that names a text column is one record.

Without such a column a short file is one document, a table as rows; a long one is refused, because
a data set whose text column has another name must not become one document unnoticed.

Tables as text: each row one line, its cells joined by `` | ``, the column's label before values.

A row stands alone in a chunk and in an answer, so under a header each value carries its column's
label (``Jeju | Daily: 34,000 | Lodging: 118,000``). The table and row of any offset can be told
from the text alone (``table_place``), so that nothing beside the text must be stored.

A document being written: headings, paragraphs and tables in the order in which they come.

Headings become Markdown headings and list items bullets, as everywhere in the stored text; tables
become rows (``table_rows``) set off by blank lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from ondol.core.types import ReadDocument
from ondol.documents.readers.encoding import decode
from ondol.documents.readers.json_records import (
    NEEDS_TEXT,
    TEXT_FIELDS,
    BadRecord,
    Numbered,
    read_each,
    shown,
)
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadItem,
    ReadItems,
    ReadLimits,
    failed,
    too_many_chars,
)
from ondol.language.normalise import normalise

CELL = " | "
_ALONE = " |"  # ends a row of one cell, so that it is still seen as a row
_LABEL_CHARS = 30
_HEADER_CHARS = 60
_HEADER_ROWS = 3
_SPAN = 200
_PLACES = 1_000_000  # beyond, spans are not believed
_REPEATED_CHARS = 60
_FIGURE = re.compile(
    r"(?:\w{1,4}\s)?[^\w\s]{0,2}\s?\d[\d\s.,:/~%()\-–−+₩$€£×개일월년명건점시분회배만억원]*\D{0,8}"
)
_PERIOD = re.compile(
    r"\D{0,6}(?:19|20)\d\d\D{0,4}(?:\d{1,2}\D{0,4}){0,2}|\d{1,2}\s?(?:월|분기)|Q[1-4]"
)
_NOTHING = frozenset({"-", "–", "—", "$", "n/a", "N/A"})
_ROW_LINE = re.compile(r"(?:^| )\|(?: |$)")
_RULE_LINE = re.compile(r"\|[|\s:\-]+")  # under the header of a Markdown table

Row = Sequence[str | None]  # None: covered by the cell to its left
Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell as its format has it: text, and over how many rows and columns it reaches."""

    text: str
    down: int = 1
    across: int = 1


@dataclass(frozen=True, slots=True)
class TablePlace:
    """Where a row stands: table of the document and row of the table, both counted from 1."""

    table: int
    row: int


def spread(rows: Sequence[Sequence[Cell]]) -> list[list[str | None]]:
    """Return the cells by place: one over several columns speaks once, one over rows in each row.

    A long one over several rows speaks in the first only.
    """
    grid: list[dict[int, str | None]] = [{} for _ in rows]
    left = _PLACES
    for at, row in enumerate(rows):
        column = 0
        for cell in row:
            while column in grid[at]:
                column += 1
            wide = min(max(1, cell.across), _SPAN)
            high = min(max(1, cell.down), len(rows) - at)
            left -= wide * high
            wide, high = (wide, high) if left > 0 else (1, 1)
            across = range(column, column + wide)
            for line in range(at, at + high):
                again = line > at and len(cell.text) > _REPEATED_CHARS
                for place in across:
                    grid[line][place] = None if place != column else "" if again else cell.text
            column = across.stop
    return [[found.get(place, "") for place in range(max(found, default=-1) + 1)] for found in grid]


def table_lines(rows: Rows, *, header: bool = False) -> list[str]:
    """Return the lines of a table. ``header`` says that the first row is known to name the columns.

    Otherwise the first rows are taken as labels only when figures stand under words. Cells lose
    their line breaks; rows and columns without text are left out; one column gives plain lines.
    """
    grid = _filled(rows)
    if not grid:
        return []
    if len(grid[0]) == 1:
        return [row[0] for row in grid if row[0]]
    lines: list[str] = []
    while len(grid) > 1 and sum(map(bool, grid[0])) == 1 and not _is_figure(_first(grid[0])):
        lines.append(_plain(grid.pop(0)))  # a caption inside the table
    depth = _header_rows(grid, known=header)
    labels = _labels(grid[:depth])
    lines += [_plain(row) for row in grid[:depth]]
    return lines + [_labelled(row, labels) if depth else _plain(row) for row in grid[depth:]]


def table_place(text: str, at: int) -> TablePlace | None:
    """Return which table and row of the stored ``text`` holds offset ``at``, or ``None``."""
    end = text.find("\n", at)
    table = row = 0
    for line in (text if end < 0 else text[:end]).split("\n"):
        if _RULE_LINE.fullmatch(line):
            continue
        row = row + 1 if _ROW_LINE.search(line) else 0
        table += row == 1
    return TablePlace(table, row) if row else None


def _filled(rows: Rows) -> list[list[str | None]]:
    """Return the rows without empty rows and columns, all of one length."""
    cleaned = [[None if cell is None else " ".join(cell.split()) for cell in row] for row in rows]
    width = max((len(row) for row in cleaned), default=0)
    grid = [row + [""] * (width - len(row)) for row in cleaned if any(row)]
    kept = [column for column in range(width) if any(row[column] for row in grid)]
    return [[row[column] for column in kept] for row in grid]


def _header_rows(grid: list[list[str | None]], *, known: bool) -> int:
    """Return how many first rows name the columns, or 0: words over figures.

    A row with a cell over several columns has the row below it for a header too.
    """
    depth = 1
    while depth < min(_HEADER_ROWS, len(grid) - 1) and None in grid[depth - 1]:
        depth += 1
    if len(grid) < 2 or not all(map(_words_only, grid[:depth])):
        return 0
    if known:
        return depth
    labels = _labels(grid[:depth])
    columns = [[row[column] for row in grid[depth:]] for column in range(1, len(labels))]
    figures = sum(map(_mostly_figures, columns))
    named = sum(map(bool, labels[1:]))
    return depth if figures * 2 >= len(columns) and named * 2 > len(columns) else 0


def _labels(rows: list[list[str | None]]) -> list[str]:
    """Return one label a column: the header cells above it, a spanning cell for all it covers."""
    if not rows:
        return []
    labels: list[list[str]] = [[] for _ in rows[0]]
    for row in rows:
        last = ""
        for column, cell in enumerate(row):
            last = last if cell is None else cell
            if last and last not in labels[column]:
                labels[column].append(last)
    return [" ".join(parts) for parts in labels]


def _words_only(row: Row) -> bool:
    return all(len(cell) <= _HEADER_CHARS and not _is_figure(cell) for cell in row if cell)


def _mostly_figures(cells: Row) -> bool:
    said = [cell for cell in cells if cell]
    return bool(said) and 2 * sum(map(_counts, said)) >= len(said)


def _counts(cell: str) -> bool:
    return cell in _NOTHING or _FIGURE.fullmatch(cell) is not None


def _is_figure(cell: str) -> bool:
    if not any(map(str.isalnum, cell)):
        return True
    return _FIGURE.fullmatch(cell) is not None and _PERIOD.fullmatch(cell) is None


def _first(row: Row) -> str:
    return next((cell for cell in row if cell), "")


def _plain(row: Row) -> str:
    said = [cell for cell in row if cell is not None]
    while said and not said[-1]:
        said.pop()
    return CELL.join(said).lstrip() if len(said) > 1 else _first(said) + _ALONE


def _labelled(row: Row, labels: Sequence[str]) -> str:
    said = [row[0]] if row[0] else []
    for label, value in zip(labels[1:], row[1:], strict=True):
        if value:
            named = label and len(label) <= _LABEL_CHARS and label != value
            said.append(f"{label}: {value}" if named else value)
    return CELL.join(said) if len(said) > 1 else _first(said) + _ALONE


_TABLE_ROWS = 2000
_TABLE_COLUMNS = 2


def read_csv(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield one item for each row below the header row, or one table; ``.tsv`` files too."""
    text = normalise(decode(source.data, name=source.name).text)
    csv.field_size_limit(max(limits.max_chars, csv.field_size_limit()))
    first = text[: text.find("\n") + 1] or text
    delimiter = max("\t,;", key=first.count) if source.extension != ".tsv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    if not any(name.lower() in TEXT_FIELDS for name in header):
        yield _table(source, header, reader, limits)
        return
    yield from read_each(source, _rows(reader, header), limits=limits)


def _table(
    source: DocumentSource, header: list[str], reader: Iterator[list[str]], limits: ReadLimits
) -> ReadItem:
    """Return the whole file as one table, or why it is none."""
    try:
        rows = [header, *islice(reader, _TABLE_ROWS)]
    except csv.Error:
        rows = []
    columns = sum(sum(map(bool, row)) >= _TABLE_COLUMNS for row in rows)
    if columns < _TABLE_COLUMNS or len(rows) > _TABLE_ROWS:
        return failed(
            source.name,
            "bad_record",
            f"{source.name!r} has no text column; its first row is {shown(', '.join(header))!r}",
            hint=NEEDS_TEXT,
        )
    text = "\n".join(table_lines(rows))
    if len(text) > limits.max_chars:
        return too_many_chars(source.name, len(text), limits)
    return ReadDocument(
        source=source.name,
        title=source.stem,
        text=text,
        media_type="text/csv",
        warnings=(f"read as one table of {len(rows)} rows: no column is called text",),
    )


def _rows(reader: Iterator[list[str]], header: list[str]) -> Numbered:
    for number in count(1):
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"row {number}", _bad(f"is no CSV: {error}")
            continue
        if len(row) > len(header):
            yield f"row {number}", _bad(f"has {len(row)} cells under {len(header)} columns")
        elif any(cell.strip() for cell in row):
            yield f"row {number}", dict(zip(header, row, strict=False))


def _bad(message: str) -> BadRecord:
    return BadRecord("bad_record", message, "Quote cells that hold the separator.")


_CONTROLS = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\ufeff\uffff]")
_GAPS = re.compile(r"\n{3,}")
_TRAILING = re.compile(r"[ \t\u00a0]+(?=\n)")
_MAX_HEADING = 6


class Blocks:
    """Collects blocks; ``text`` is the document so far in stored form."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.title = ""

    def heading(self, text: str, level: int) -> None:
        """Add a heading of ``level`` 1 to 6; the first one is the document's title of its own."""
        words = " ".join(text.split())
        if words:
            self.title = self.title or words
            self._pieces.append(f"\n\n{'#' * min(max(level, 1), _MAX_HEADING)} {words}\n\n")

    def paragraph(self, text: str, *, apart: bool = False) -> None:
        """Add a paragraph on its own line, or ``apart``: with a blank line around it."""
        self._pieces.append(f"\n\n{text}\n\n" if apart else f"{text}\n")

    def item(self, text: str) -> None:
        """Add a list item."""
        if text.strip():
            self._pieces.append(f"\n- {text.strip()}\n")

    def table(self, rows: Rows, *, header: bool = False) -> None:
        """Add a table; one without text adds nothing."""
        lines = table_lines(rows, header=header)
        if lines:
            self._pieces.append("\n\n" + "\n".join(lines) + "\n\n")

    def text(self) -> str:
        """Return the text: normalised, without control characters, at most one blank line."""
        whole = _CONTROLS.sub("", normalise("".join(self._pieces)))
        return _GAPS.sub("\n\n", _TRAILING.sub("", whole)).replace("\n\n- ", "\n- ").strip("\n ")

"""Tables as text: each row one line, its cells joined by `` | ``, the column's label before values.

A row stands alone in a chunk and in an answer, so under a header each value carries its column's
label (``Jeju | Daily: 34,000 | Lodging: 118,000``). The table and row of any offset can be told
from the text alone (``table_place``), so that nothing beside the text must be stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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

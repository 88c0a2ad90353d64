"""The text of one PDF page with its tables as rows: which lines are tables, and what stays as it is.

PDFium's order is kept. A page that shows neither drawn grids nor words set far apart costs no more
than its text; only the others are looked at word by word.

Headers, footers and page numbers: lines that repeat at the edges of most pages.

A line goes only when it stands among the outer lines of more than 60 % of at least four pages,
with the same words, and its numbers the same or counting with the pages. The first occurrence of a
line without a page number stays: it may be the only place that names the document.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pypdfium2 as pdfium

from ondol.documents.readers.pdf_glyphs import Glyphs, Word, rules_of, zones_of
from ondol.documents.readers.pdf_tables import Grid, grids_of, line_of, regions_of, rows_of
from ondol.documents.readers.tables import table_lines

_MAX_RUNS = 700
_MAX_CHARS = 60_000
_CELL_CHARS = 1200
_FIGURES = re.compile(
    r"(?:^|\s)[($₩€£]*\d[\d.,]*[%)]*(?:\s[^\n]*)?\s[($₩€£]*\d[\d.,]*[%)]*(?:\s|$)"
)


@dataclass(frozen=True, slots=True)
class LayoutPiece:
    """Characters ``start`` to ``end`` of the page, or the rows that stand in their place."""

    start: int
    end: int
    rows: tuple[str, ...] = ()


@dataclass(slots=True)
class _Run:
    """One of PDFium's lines, its words, and the grid that holds them."""

    start: int
    end: int
    words: list[Word] = field(default_factory=list)
    grid: int | None = None


def page_pieces(page: pdfium.PdfPage, glyphs: Glyphs) -> list[LayoutPiece]:
    """Return the page's text in pieces, in order; one piece where there is no table."""
    whole = [LayoutPiece(0, len(glyphs.text))]
    if not glyphs.text or len(glyphs.text) > _MAX_CHARS:
        return whole
    grids = grids_of(rules_of(page))
    zones = [(grid.rows[-1], grid.rows[0]) for grid in grids]
    spaced = glyphs.spaced(most=_MAX_RUNS)
    if spaced is None:
        spaced = _zones_of_figures(glyphs)
    if not grids and not spaced:
        return whole
    runs = _runs(glyphs, grids, zones + spaced)
    return _joined(list(_pieces(glyphs, grids, runs)), len(glyphs.text))


def _zones_of_figures(glyphs: Glyphs) -> list[tuple[float, float]]:
    """Return where at least three lines with two figures each stand near one another."""
    levels: list[tuple[float, float]] = []
    for start, end in glyphs.lines():
        if _FIGURES.search(glyphs.text, start, end):
            box = glyphs.box(start)
            if box is not None:
                levels.append((box[1], box[3]))
    return zones_of(levels)


def _runs(glyphs: Glyphs, grids: list[Grid], zones: list[tuple[float, float]]) -> list[_Run]:
    runs = []
    for start, end in glyphs.lines():
        run = _Run(start, end)
        box = glyphs.box(start)
        if box is not None and any(low <= (box[1] + box[3]) / 2 <= high for low, high in zones):
            run.words = glyphs.words(start, end)
            run.grid = _holder_of(grids, run.words) if grids else None
        runs.append(run)
    return runs


def _holder_of(grids: list[Grid], words: list[Word]) -> int | None:
    """Return the one grid that holds all of ``words``, or ``None``."""
    held: int | None = None
    for word in words:
        x, y = (word.left + word.right) / 2, (word.bottom + word.top) / 2
        if held is None:
            held = next((at for at, grid in enumerate(grids) if grid.cell(x, y) is not None), None)
            if held is None:
                return None
        elif grids[held].cell(x, y) is None:
            return None
    return held


def _pieces(glyphs: Glyphs, grids: list[Grid], runs: list[_Run]) -> Iterator[LayoutPiece]:
    """Yield the tables, each in the place of its first line; grids first, then aligned lines."""
    held: dict[int, list[_Run]] = {}
    for run in runs:
        if run.grid is not None:
            held.setdefault(run.grid, []).append(run)
    drawn: set[int] = set()
    for at, inside in held.items():
        lines = _grid_lines(grids[at], inside, glyphs)
        if lines:
            drawn.add(at)
            yield LayoutPiece(inside[0].start, inside[0].end, lines)
            yield from (LayoutPiece(run.start, run.end, ("",)) for run in inside[1:])
    free: list[_Run] = []
    for run in runs:
        if run.words and run.grid not in drawn:
            free.append(run)
        elif free:
            yield from _aligned(glyphs, free)
            free = []
    yield from _aligned(glyphs, free)


def _grid_lines(grid: Grid, runs: list[_Run], glyphs: Glyphs) -> tuple[str, ...]:
    """Return the rows of a drawn table, or nothing where the lines only lay out the page."""
    words: dict[tuple[int, int], list[str]] = {}
    order: list[tuple[int, int]] = []
    for run in runs:
        for word in run.words:
            for part in _parts(grid, word, glyphs):
                place = grid.cell((part.left + part.right) / 2, part.middle)
                if place is not None:
                    words.setdefault(place, []).append(glyphs.text[part.start : part.end])
                    order.append(place)
    rows = rows_of(grid, words, order)
    filled = [sum(map(bool, row)) for row in rows]
    if sum(count > 1 for count in filled) < 2:
        return ()
    if any(len(cell) > _CELL_CHARS for row in rows for cell in row if cell):
        return ()
    return tuple(table_lines(rows))


def _parts(grid: Grid, word: Word, glyphs: Glyphs) -> Iterator[Word]:
    """Yield ``word``, cut where it runs over a border: cells can stand so close that no space shows."""
    cut = grid.cut(word.left + 2, word.right - 2, word.middle)
    if not cut:
        yield word
        return
    start = word.start
    left = word.left
    for index in range(word.start + 1, word.end):
        box = glyphs.box(index)
        if box and cut and (box[0] + box[2]) / 2 > cut[0]:
            yield Word(start, index, left, word.bottom, cut[0], word.top)
            start, left = index, box[0]
            cut = [x for x in cut if x > (box[0] + box[2]) / 2]
    yield Word(start, word.end, left, word.bottom, word.right, word.top)


def _aligned(glyphs: Glyphs, runs: list[_Run]) -> Iterator[LayoutPiece]:
    """Yield the tables without lines among neighbouring runs."""
    visual: list[list[_Run]] = []
    for run in runs:
        if visual and _beside(visual[-1][-1], run):
            visual[-1].append(run)
        else:
            visual.append([run])
    lines = [
        line_of([word for run in group for word in run.words], glyphs.text) for group in visual
    ]
    for region in regions_of(lines):
        inside = [run for group in visual[region.first : region.last + 1] for run in group]
        rows = region.columns or tuple(table_lines(region.rows))
        if len(rows) > 1:
            yield LayoutPiece(inside[0].start, inside[0].end, rows)
            yield from (LayoutPiece(run.start, run.end, ("",)) for run in inside[1:])


def _beside(before: _Run, run: _Run) -> bool:
    """Whether ``run`` goes on to the right of ``before`` on the same level."""
    one, other = before.words[-1], run.words[0]
    level = min(one.top, other.top) - max(one.bottom, other.bottom)
    return level > 0.6 * min(one.top - one.bottom, other.top - other.bottom) and (
        other.left > one.right
    )


def _joined(tables: list[LayoutPiece], length: int) -> list[LayoutPiece]:
    """Return the tables with the text between them, in order."""
    pieces: list[LayoutPiece] = []
    at = 0
    for piece in sorted(tables, key=lambda piece: piece.start):
        if piece.start > at:
            pieces.append(LayoutPiece(at, piece.start))
        pieces.append(piece)
        at = piece.end
    if at < length:
        pieces.append(LayoutPiece(at, length))
    return pieces


_MIN_PAGES = 4
_SHARE = 0.6
_EDGE_LINES = 3
_MAX_RUNNING_CHARS = 120
_NUMBER = re.compile(r"\d{1,6}")

Shape = tuple[str, int | None, tuple[int, ...]]  # words, place of the page number, other numbers


def without_running_lines(pages: Sequence[str]) -> list[str]:
    """Return ``pages`` without their running lines; fewer than four pages return unchanged."""
    if len(pages) < _MIN_PAGES:
        return list(pages)
    running = _running(pages)
    if not running:
        return list(pages)
    seen: set[Shape] = set()
    return [_strip(text, page, running, seen) for page, text in enumerate(pages)]


def _running(pages: Sequence[str]) -> frozenset[Shape]:
    counts: Counter[Shape] = Counter()
    written = 0
    for page, text in enumerate(pages):
        written += bool(text)
        shapes: set[Shape] = set()
        lines = text.split("\n")
        for at in _edges(len(lines)):
            shapes.update(_shapes(lines[at], page))
        counts.update(shapes)
    needed = max(_MIN_PAGES, _SHARE * written)
    return frozenset(
        shape for shape, count in counts.items() if count >= _MIN_PAGES and count > needed - 1e-9
    )


def _strip(text: str, page: int, running: frozenset[Shape], seen: set[Shape]) -> str:
    lines = text.split("\n")
    dropped: set[int] = set()
    for at in _edges(len(lines)):
        matched = [shape for shape in _shapes(lines[at], page) if shape in running]
        if not matched:
            continue
        constant = [shape for shape in matched if shape[1] is None]
        if constant and constant[0] not in seen:
            seen.add(constant[0])
            continue
        dropped.add(at)
    if not dropped:
        return text
    return "\n".join(line for at, line in enumerate(lines) if at not in dropped).strip("\n")


def _edges(count: int) -> Iterator[int]:
    top = range(min(_EDGE_LINES, count))
    bottom = range(max(_EDGE_LINES, count - _EDGE_LINES), count)
    yield from top
    yield from bottom


def _shapes(line: str, page: int) -> Iterator[Shape]:
    """Yield what ``line`` could be: constant, or with one of its numbers counting the pages."""
    words = " ".join(line.split())
    if not words or len(words) > _MAX_RUNNING_CHARS:
        return
    numbers = [int(number) for number in _NUMBER.findall(words)]
    pattern = _NUMBER.sub("#", words)
    if any(character.isalpha() for character in words):
        yield pattern, None, tuple(numbers)
    for place, number in enumerate(numbers[:3]):
        others = tuple(n for i, n in enumerate(numbers) if i != place)
        yield pattern, place, (number - page, *others)

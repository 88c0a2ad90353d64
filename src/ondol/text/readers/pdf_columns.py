"""Tables without lines: neighbouring lines whose words stand in the same columns.

Pure functions of coordinates. A run of lines is a table when at least three of them split at wide
gaps into the same columns and hold figures or short words. Long text in two columns, written line
by line across both, is a page set in columns: it is read down the left one first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ondol.text.readers.pdf_glyphs import Word

_GAP = 1.2  # times the height of the letters; justified spaces stay below
_LEAST_GAP = 5.0
_LEADING = 3.0  # times the height: lines further apart are not of one table
_ROWS = 3
_LONE_LINES = 2
_SHORT_CHARS = 22
_LONG_CHARS = 60
_FIGURES_SHARE = 0.4
_PROSE_LINES = 6
_PROSE_CHARS = 15
_PROSE_SHARE = 0.6
_AGREED_SHARE = 0.25
_FITTING_SHARE = 0.6
_SIGNS = frozenset({"$", "₩", "€", "£", "¥", "("})
_CLOSING = re.compile(r"[)%]+")
_FIGURE = re.compile(r"[^\w]*\d[\d.,:/%()\-–−]*\D{0,4}")

Column = tuple[float, float]  # from place, to place


@dataclass(frozen=True, slots=True)
class Segment:
    """Words of a line with no wide gap between them."""

    words: tuple[Word, ...]
    text: str

    @property
    def left(self) -> float:
        """Return where it begins."""
        return self.words[0].left

    @property
    def right(self) -> float:
        """Return where it ends."""
        return self.words[-1].right


@dataclass(frozen=True, slots=True)
class Line:
    """One visual line: its segments from left to right, and its place."""

    segments: tuple[Segment, ...]
    bottom: float
    top: float

    @property
    def height(self) -> float:
        """Return the height of its letters."""
        return self.top - self.bottom


@dataclass(frozen=True, slots=True)
class Region:
    """Lines ``first`` to ``last`` (inclusive) are a table with these rows, or text in columns."""

    first: int
    last: int
    rows: list[list[str | None]]
    columns: tuple[str, ...] = ()


def line_of(words: Sequence[Word], text: str) -> Line:
    """Return the line that ``words`` (never empty) make; ``text`` is the page's."""
    height = sorted(word.top - word.bottom for word in words)[len(words) // 2]
    gap = max(_GAP * height, _LEAST_GAP)
    groups: list[list[Word]] = [[words[0]]]
    for before, word in pairwise(words):
        apart = word.left - before.right > gap or word.left < before.left
        signed = text[groups[-1][0].start : before.end] in _SIGNS
        if (apart or text[word.start : word.end] in _SIGNS) and not signed:
            groups.append([word])
        else:
            groups[-1].append(word)
    segments: list[Segment] = []
    for group in groups:
        said = " ".join(text[word.start : word.end] for word in group)
        if segments and _CLOSING.fullmatch(said):
            last = segments.pop()
            segments.append(Segment((*last.words, *group), last.text + said))
        else:
            segments.append(Segment(tuple(group), said))
    return Line(
        tuple(segments), min(word.bottom for word in words), max(word.top for word in words)
    )


def regions_of(lines: Sequence[Line]) -> list[Region]:
    """Return the tables among ``lines``, in order."""
    found: list[Region] = []
    at = 0
    while at < len(lines):
        if len(lines[at].segments) < 2:
            at += 1
            continue
        last = _run(lines, at)
        region = _region(lines[at : last + 1], at)
        if region is not None:
            found.append(region)
        at = last + 1
    return found


def _run(lines: Sequence[Line], first: int) -> int:
    """Return the last line of the run of split lines that begins at ``first``."""
    last = first
    for at in range(first + 1, len(lines)):
        line, above = lines[at], lines[at - 1]
        distance = above.bottom - line.top
        if distance > _LEADING * line.height or line.top > above.top:
            break
        if len(line.segments) > 1:
            last = at
        elif at - last > _LONE_LINES or len(line.segments[0].text) > _LONG_CHARS:
            break
    return last


def _region(lines: Sequence[Line], first: int) -> Region | None:
    split = [line for line in lines if len(line.segments) > 1]
    columns = _columns(split) if len(split) >= _ROWS else None
    if columns is None:
        return None
    last = first + len(lines) - 1
    if _tabular(split):
        return Region(first, last, _rows(lines, columns))
    if len(columns) == 2 and len(split) >= _PROSE_LINES and _prose(split):
        placed = [_placed(line, columns) for line in lines]
        read = (row[column] for column in range(2) for row in placed)
        return Region(first, last, [], tuple(text for text in read if text))
    return None


def _rows(lines: Sequence[Line], columns: Sequence[Column]) -> list[list[str | None]]:
    rows: list[list[str | None]] = []
    for line in lines:
        placed = _placed(line, columns)
        column = next((at for at, cell in enumerate(placed) if cell), 0)
        goes_on = len(line.segments) == 1 and column > 0 and rows and rows[-1][column] is not None
        if goes_on:
            rows[-1][column] = f"{rows[-1][column]} {placed[column]}".strip()
        else:
            rows.append(placed)
    return rows


def _prose(lines: Sequence[Line]) -> bool:
    """Whether both columns are mostly full lines of text."""
    long = sum(
        all(len(segment.text) >= _PROSE_CHARS for segment in line.segments) for line in lines
    )
    return long >= _PROSE_SHARE * len(lines)


def _columns(lines: Sequence[Line]) -> list[Column] | None:
    """Return the most columns that some lines agree on and the others fit, or ``None``."""
    counts = Counter(len(line.segments) for line in lines)
    for width in sorted(counts, reverse=True):
        if counts[width] < max(2, _AGREED_SHARE * len(lines)):
            continue
        agreed = [line.segments for line in lines if len(line.segments) == width]
        columns = [
            (min(row[at].left for row in agreed), max(row[at].right for row in agreed))
            for at in range(width)
        ]
        if any(one[1] >= other[0] for one, other in pairwise(columns)):
            continue
        others = [part for line in lines if len(line.segments) != width for part in line.segments]
        if sum(len(_over(part, columns)) == 1 for part in others) >= _FITTING_SHARE * len(others):
            return columns
    return None


def _over(segment: Segment, columns: Sequence[Column]) -> list[int]:
    """Return the columns that ``segment`` stands over."""
    return [
        at
        for at, (left, right) in enumerate(columns)
        if min(segment.right, right) - max(segment.left, left) > 0
    ]


def _tabular(lines: Sequence[Line]) -> bool:
    """Whether the cells beyond the first column are figures, or short throughout."""
    cells = [segment.text for line in lines for segment in line.segments[1:]]
    figures = sum(_FIGURE.fullmatch(cell) is not None for cell in cells)
    if figures >= _FIGURES_SHARE * len(cells):
        return True
    every = cells + [line.segments[0].text for line in lines]
    return sum(map(len, every)) <= _SHORT_CHARS * len(every)


def _placed(line: Line, columns: Sequence[Column]) -> list[str | None]:
    row: list[str | None] = [""] * len(columns)
    for segment in line.segments:
        over = _over(segment, columns)
        if not over:
            middle = (segment.left + segment.right) / 2
            over = [min(range(len(columns)), key=lambda at: abs(sum(columns[at]) / 2 - middle))]
        first = over[0]
        row[first] = f"{row[first] or ''} {segment.text}".strip()
        for at in over[1:]:
            if not row[at]:
                row[at] = None
    return row

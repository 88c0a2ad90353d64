"""Tables drawn with lines: from the rules of a page to grids, and from words to their cells.

Pure functions of coordinates. Lines that meet make a grid; where a line between two cells is
missing, the cells are one. A grid needs two rows and two columns.

Tables without lines: neighbouring lines whose words stand in the same columns.

Pure functions of coordinates. A run of lines is a table when at least three of them split at wide
gaps into the same columns and hold figures or short words. Long text in two columns, written line
by line across both, is a page set in columns: it is read down the left one first.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ondol.documents.readers.pdf_glyphs import Rule, Rules, Word

_NEAR = 3.0  # points: lines this close are one
_REACH = 4.0  # points: a line this far from another still meets it
_MAX_MEETINGS = 20_000
_MAX_CELLS = 6000
_REPEATED_CHARS = 60
_FIGURE_ROWS = 3
_FIGURES_SHARE = 0.7
_FIGURE = re.compile(r"[\W\d]+")

Place = tuple[int, int]  # row, column


@dataclass(frozen=True, slots=True)
class Grid:
    """Column borders from left, row borders from the top, and the rules between cells.

    ``depths`` are the row borders measured downwards, ascending as bisection wants them.
    """

    columns: tuple[float, ...]
    rows: tuple[float, ...]
    across: tuple[Rule, ...]
    down: tuple[Rule, ...]
    depths: tuple[float, ...]

    def cell(self, x: float, y: float) -> tuple[int, int] | None:
        """Return row and column at a point, or ``None`` outside."""
        column = bisect_right(self.columns, x) - 1
        row = bisect_right(self.depths, -y) - 1
        if 0 <= column < len(self.columns) - 1 and 0 <= row < len(self.rows) - 1:
            return row, column
        return None

    def cut(self, left: float, right: float, y: float) -> list[float]:
        """Return the columns' borders drawn at height ``y`` between two places."""
        return [x for x in self.columns if left < x < right and _drawn(_near(self.down, x), y)]

    def cells(self) -> list[list[int]]:
        """Return for each place the number of its cell: places without a line between share one."""
        wide, high = len(self.columns) - 1, len(self.rows) - 1
        joined = _Joined(wide * high)
        uprights = [_near(self.down, border) for border in self.columns]
        levels = [_near(self.across, border) for border in self.rows]
        for row in range(high):
            y = (self.rows[row] + self.rows[row + 1]) / 2
            for column in range(wide - 1):
                if not _drawn(uprights[column + 1], y):
                    joined.join(row * wide + column, row * wide + column + 1)
        for column in range(wide):
            x = (self.columns[column] + self.columns[column + 1]) / 2
            for row in range(high - 1):
                if not _drawn(levels[row + 1], x):
                    joined.join(row * wide + column, (row + 1) * wide + column)
        return [[joined.root(row * wide + column) for column in range(wide)] for row in range(high)]


@dataclass(slots=True)
class _Joined:
    """Disjoint sets of numbers below ``size``."""

    size: int
    _above: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._above = list(range(self.size))

    def root(self, number: int) -> int:
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._above[high] = low


def grids_of(rules: Rules) -> list[Grid]:
    """Return the grids that the rules draw, from the top of the page down."""
    across, down = _merged(rules.across), _merged(rules.down)
    if len(across) * len(down) > _MAX_MEETINGS:  # a drawing
        return []
    joined = _Joined(len(across) + len(down))
    places = [upright.at for upright in down]  # ascending, as merged
    for i, level in enumerate(across):
        first = bisect_left(places, level.start - _REACH)
        after = bisect_right(places, level.end + _REACH)
        for j in range(first, after):
            if down[j].start - _REACH <= level.at <= down[j].end + _REACH:
                joined.join(i, len(across) + j)
    groups: dict[int, tuple[list[Rule], list[Rule]]] = {}
    for number in range(len(across) + len(down)):
        group = groups.setdefault(joined.root(number), ([], []))
        if number < len(across):
            group[0].append(across[number])
        else:
            group[1].append(down[number - len(across)])
    found = [grid for group in groups.values() if (grid := _grid(*group)) is not None]
    return sorted(found, key=lambda grid: -grid.rows[0])


def rows_of(
    grid: Grid, words: Mapping[Place, list[str]], order: Sequence[Place]
) -> list[list[str | None]]:
    """Return the grid's rows as text; ``order`` names the place of each word, in reading order.

    A cell over several rows speaks in each when it is short, one over several columns once. Figures
    one below the other keep their rows even where no lines are drawn between them.
    """
    cells = _kept_apart(grid.cells(), words)
    left = {place: iter(said) for place, said in words.items()}
    spoken_in: dict[int, list[str]] = {}
    for place in order:
        spoken_in.setdefault(cells[place[0]][place[1]], []).append(next(left[place]))
    texts = {cell: " ".join(said) for cell, said in spoken_in.items()}
    rows: list[list[str | None]] = []
    spoken: set[int] = set()
    for line in cells:
        here: set[int] = set()
        row: list[str | None] = []
        for cell in line:
            text = texts.get(cell, "")
            again = cell in spoken and len(text) > _REPEATED_CHARS
            row.append(None if cell in here else "" if again else text)
            here.add(cell)
        spoken |= here
        rows.append(row)
    return rows


def _kept_apart(cells: list[list[int]], words: Mapping[Place, list[str]]) -> list[list[int]]:
    """Return ``cells`` with those taken apart that hold figures on three rows or more."""
    places: dict[int, list[Place]] = {}
    for place in words:
        places.setdefault(cells[place[0]][place[1]], []).append(place)
    fresh = sum(map(len, cells))
    for cell, held in places.items():
        said = [word for place in held for word in words[place]]
        figures = sum(_FIGURE.fullmatch(word) is not None for word in said)
        if len({row for row, _ in held}) < _FIGURE_ROWS or figures < _FIGURES_SHARE * len(said):
            continue
        for row in cells:
            for column, number in enumerate(row):
                if number == cell:
                    row[column] = fresh
            fresh += 1
    return cells


def _grid(across: Sequence[Rule], down: Sequence[Rule]) -> Grid | None:
    if len(across) < 2 or not down:
        return None
    columns = _borders(rule.at for rule in down)
    rows = _borders(rule.at for rule in across)
    left = min(rule.start for rule in across)
    right = max(rule.end for rule in across)
    if left < columns[0] - 2 * _REACH:  # no line closes the table at its side
        columns = [left, *columns]
        down = [*down, Rule(left, rows[0], rows[-1])]
    if right > columns[-1] + 2 * _REACH:
        columns = [*columns, right]
        down = [*down, Rule(right, rows[0], rows[-1])]
    if len(columns) < 3 or len(rows) < 3 or len(columns) * len(rows) > _MAX_CELLS:
        return None
    levels = tuple(reversed(rows))
    depths = tuple(-level for level in levels)
    return Grid(tuple(columns), levels, tuple(across), tuple(down), depths)


def _borders(places: Iterable[float]) -> list[float]:
    borders: list[float] = []
    last = float("-inf")
    for place in sorted(places):
        if place - last > _NEAR:
            borders.append(place)
        last = place
    return borders


def _merged(rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules with touching pieces of one line made one."""
    merged: list[Rule] = []
    level: list[Rule] = []
    for rule in sorted(rules, key=lambda rule: rule.at):
        if level and rule.at - level[-1].at > _NEAR:
            merged += _in_one_line(level)
            level = []
        level.append(rule)
    return merged + _in_one_line(level)


def _in_one_line(level: list[Rule]) -> list[Rule]:
    if not level:
        return []
    at = sum(rule.at for rule in level) / len(level)
    pieces: list[Rule] = []
    for rule in sorted(level, key=lambda rule: rule.start):
        if pieces and rule.start <= pieces[-1].end + _REACH:
            pieces[-1] = Rule(at, pieces[-1].start, max(pieces[-1].end, rule.end))
        else:
            pieces.append(Rule(at, rule.start, rule.end))
    return pieces


def _near(rules: Sequence[Rule], at: float) -> list[Rule]:
    return [rule for rule in rules if abs(rule.at - at) <= _NEAR]


def _drawn(rules: Sequence[Rule], place: float) -> bool:
    return any(rule.start <= place <= rule.end for rule in rules)


_GAP = 1.2  # times the height of the letters; justified spaces stay below
_LEAST_GAP = 5.0
_LEADING = 3.0  # times the height: lines further apart are not of one table
_ROWS = 3
_LONE_LINES = 2
_SHORT_CHARS = 22
_LONG_CHARS = 60
_COLUMN_FIGURES_SHARE = 0.4
_PROSE_LINES = 6
_PROSE_CHARS = 15
_PROSE_SHARE = 0.6
_AGREED_SHARE = 0.25
_FITTING_SHARE = 0.6
_SIGNS = frozenset({"$", "₩", "€", "£", "¥", "("})
_CLOSING = re.compile(r"[)%]+")
_COLUMN_FIGURE = re.compile(r"[^\w]*\d[\d.,:/%()\-–−]*\D{0,4}")

Column = tuple[float, float]  # from place, to place


@dataclass(frozen=True, slots=True)
class ColumnSegment:
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
class TableLine:
    """One visual line: its segments from left to right, and its place."""

    segments: tuple[ColumnSegment, ...]
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


def line_of(words: Sequence[Word], text: str) -> TableLine:
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
    segments: list[ColumnSegment] = []
    for group in groups:
        said = " ".join(text[word.start : word.end] for word in group)
        if segments and _CLOSING.fullmatch(said):
            last = segments.pop()
            segments.append(ColumnSegment((*last.words, *group), last.text + said))
        else:
            segments.append(ColumnSegment(tuple(group), said))
    return TableLine(
        tuple(segments), min(word.bottom for word in words), max(word.top for word in words)
    )


def regions_of(lines: Sequence[TableLine]) -> list[Region]:
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


def _run(lines: Sequence[TableLine], first: int) -> int:
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


def _region(lines: Sequence[TableLine], first: int) -> Region | None:
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


def _rows(lines: Sequence[TableLine], columns: Sequence[Column]) -> list[list[str | None]]:
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


def _prose(lines: Sequence[TableLine]) -> bool:
    """Whether both columns are mostly full lines of text."""
    long = sum(
        all(len(segment.text) >= _PROSE_CHARS for segment in line.segments) for line in lines
    )
    return long >= _PROSE_SHARE * len(lines)


def _columns(lines: Sequence[TableLine]) -> list[Column] | None:
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


def _over(segment: ColumnSegment, columns: Sequence[Column]) -> list[int]:
    """Return the columns that ``segment`` stands over."""
    return [
        at
        for at, (left, right) in enumerate(columns)
        if min(segment.right, right) - max(segment.left, left) > 0
    ]


def _tabular(lines: Sequence[TableLine]) -> bool:
    """Whether the cells beyond the first column are figures, or short throughout."""
    cells = [segment.text for line in lines for segment in line.segments[1:]]
    figures = sum(_COLUMN_FIGURE.fullmatch(cell) is not None for cell in cells)
    if figures >= _COLUMN_FIGURES_SHARE * len(cells):
        return True
    every = cells + [line.segments[0].text for line in lines]
    return sum(map(len, every)) <= _SHORT_CHARS * len(every)


def _placed(line: TableLine, columns: Sequence[Column]) -> list[str | None]:
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

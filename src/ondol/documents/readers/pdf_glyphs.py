"""Where a PDF page's words and lines stand, read from PDFium with few and cheap calls.

Boxes are in page space (points, y upwards). PDFium's functions are called by address with plain
integers for pointers: half the cost of typed ctypes calls, which matters for every character.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from ctypes import PYFUNCTYPE, addressof, c_double, c_float, c_int, c_void_p
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import pypdfium2 as pdfium
import pypdfium2.raw as raw

_WORD = re.compile(r"\S+")
_LINE = re.compile(r"[^\r\n]+")
_MAX_OBJECTS = 3000
_MAX_PATHS = 3000
_MAX_SEGMENTS = 10_000
_THIN = 3.0
_LONG = 6.0
_NEAR_LINES = 4.0
_ZONE_LINES = 3
_ON_PAGE = 0.95  # a frame as large as the page is a background
_GAP = 5.0
_PATH = raw.FPDF_PAGEOBJ_PATH

Zone = tuple[float, float]  # from height, to height


def _direct(function: Any, result: Any, *arguments: Any) -> Any:
    address = ctypes.cast(function, c_void_p).value
    return PYFUNCTYPE(result, *arguments)(address or 0)


_char_box = _direct(raw.FPDFText_GetLooseCharBox, c_int, c_void_p, c_int, c_void_p)
_rect = _direct(raw.FPDFText_GetRect, c_int, c_void_p, c_int, *[c_void_p] * 4)
_object = _direct(raw.FPDFPage_GetObject, c_void_p, c_void_p, c_int)
_type = _direct(raw.FPDFPageObj_GetType, c_int, c_void_p)
_bounds = _direct(raw.FPDFPageObj_GetBounds, c_int, c_void_p, *[c_void_p] * 4)
_matrix = _direct(raw.FPDFPageObj_GetMatrix, c_int, c_void_p, c_void_p)
_segments = _direct(raw.FPDFPath_CountSegments, c_int, c_void_p)
_segment = _direct(raw.FPDFPath_GetPathSegment, c_void_p, c_void_p, c_int)
_point = _direct(raw.FPDFPathSegment_GetPoint, c_int, c_void_p, c_void_p, c_void_p)
_segment_type = _direct(raw.FPDFPathSegment_GetType, c_int, c_void_p)


class Word(NamedTuple):
    """A run of characters without spaces: indices into the page's text, and its box.

    A tuple, as is ``Rule``: pages hold thousands, and a frozen dataclass takes 1.7 times as long.
    """

    start: int
    end: int
    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> float:
        """Return the height at which it stands."""
        return (self.bottom + self.top) / 2


class Rule(NamedTuple):
    """A drawn line: horizontal at height ``at`` from ``start`` to ``end``, or vertical likewise."""

    at: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Rules:
    """The straight lines of a page, the edges of its boxes among them."""

    across: tuple[Rule, ...]
    down: tuple[Rule, ...]


class Glyphs:
    """The characters of one open text page. ``text`` is indexed as PDFium indexes characters."""

    def __init__(self, layer: pdfium.PdfTextPage, text: str) -> None:
        self.text = text
        self._layer = ctypes.cast(layer.raw, c_void_p).value
        self._box = (c_float * 4)()
        self._at = addressof(self._box)

    def lines(self) -> Iterator[tuple[int, int]]:
        """Yield where each of PDFium's lines begins and ends."""
        return (found.span() for found in _LINE.finditer(self.text))

    def words(self, start: int, end: int) -> list[Word]:
        """Return the words between two indices; those that PDFium gives no place are left out."""
        found: list[Word] = []
        for match in _WORD.finditer(self.text, start, end):
            first, after = match.span()
            word = self._word(first, after)
            if word is not None:
                found.append(word)
        return found

    def box(self, index: int) -> tuple[float, float, float, float] | None:
        """Return left, bottom, right, top of a character, or ``None`` where it has no place."""
        if not _char_box(self._layer, index, self._at):
            return None
        left, top, right, bottom = self._box
        if left > right:
            left, right = right, left
        return (left, bottom, right, top) if bottom <= top else (left, top, right, bottom)

    def _word(self, first: int, after: int) -> Word | None:
        head = self.box(first)
        if head is None:
            return None
        if after - 1 == first:
            return Word(first, after, *head)
        tail = self.box(after - 1)
        if tail is None:
            return None
        return Word(
            first,
            after,
            min(head[0], tail[0]),
            min(head[1], tail[1]),
            max(head[2], tail[2]),
            max(head[3], tail[3]),
        )

    def spaced(self, *, most: int) -> list[Zone] | None:
        """Return where neighbouring lines hold words set far apart; ``None`` past ``most`` runs.

        Looks at PDFium's runs, not characters: cheap enough for every page.
        """
        count = raw.FPDFText_CountRects(self._layer_handle(), 0, -1)
        if count > most:
            return None
        box = (c_double * 4)()
        at = addressof(box)
        levels: list[Zone] = []
        right, low, high = 0.0, 0.0, 0.0
        for index in range(count):
            _rect(self._layer, index, at, at + 8, at + 16, at + 24)
            left, top, next_right, bottom = box
            gap = left - right
            if gap > _GAP:
                height = min(top - bottom, high - low)
                level = min(top, high) - max(bottom, low)
                if gap > 1.2 * height and level > 0.4 * height:
                    levels.append((min(low, bottom), max(high, top)))
            right, low, high = next_right, bottom, top
        return zones_of(levels)

    def _layer_handle(self) -> Any:
        return ctypes.cast(self._layer or 0, raw.FPDF_TEXTPAGE)


def zones_of(levels: Sequence[Zone]) -> list[Zone]:
    """Return the stretches of the page in which at least three of ``levels`` follow each other down.

    A zone reaches beyond them for a header and the lines that a cell goes on with.
    """
    zones: list[Zone] = []
    run: list[Zone] = []
    for low, high in (*levels, (float("inf"), float("inf"))):
        height = run[-1][1] - run[-1][0] if run else 0.0
        if run and not -0.5 * height <= run[-1][0] - high <= _NEAR_LINES * height:
            if abs((low + high) / 2 - sum(run[-1]) / 2) <= 0.5 * height:
                continue  # another gap on the same line
            if len(run) >= _ZONE_LINES:
                zones.append((run[-1][0] - _NEAR_LINES * height, run[0][1] + _NEAR_LINES * height))
            run = []
        run.append((low, high))
    return zones


def rules_of(page: pdfium.PdfPage) -> Rules:
    """Return the page's straight lines; none where it draws more than a table would."""
    count = raw.FPDFPage_CountObjects(page)
    if count > _MAX_OBJECTS:
        return Rules((), ())
    handle = ctypes.cast(page.raw, c_void_p).value
    every = map(_object, repeat(handle), range(count))
    paths = [found for found in every if _type(found) == _PATH]
    if not paths or len(paths) > _MAX_PATHS:
        return Rules((), ())
    width, height = page.get_size()
    across: list[Rule] = []
    down: list[Rule] = []
    if sum(map(_segments, paths)) > _MAX_SEGMENTS:
        return Rules((), ())
    for path in paths:
        for left, bottom, right, top in _boxes(path):
            wide, high = right - left, top - bottom
            if wide > _ON_PAGE * width and high > _ON_PAGE * height:
                continue
            if high <= _THIN and wide >= _LONG:
                across.append(Rule((bottom + top) / 2, left, right))
            elif wide <= _THIN and high >= _LONG:
                down.append(Rule((left + right) / 2, bottom, top))
            elif wide >= _LONG and high >= _LONG:
                across += [Rule(bottom, left, right), Rule(top, left, right)]
                down += [Rule(left, bottom, top), Rule(right, bottom, top)]
    return Rules(tuple(across), tuple(down))


def _boxes(path: int) -> Iterator[tuple[float, float, float, float]]:
    """Yield a path's box, or those of its single strokes where it draws several."""
    count = _segments(path)
    if count <= 5:
        box = (c_float * 4)()
        at = addressof(box)
        if count >= 2 and _bounds(path, at, at + 4, at + 8, at + 12):
            left, bottom, right, top = box
            yield left, bottom, right, top
    else:
        yield from _strokes(path, count)


def _strokes(path: int, count: int) -> Iterator[tuple[float, float, float, float]]:
    matrix = (c_float * 6)()
    if not _matrix(path, addressof(matrix)):
        return
    a, b, c, d, e, f = matrix
    point = (c_float * 2)()
    at = addressof(point)
    x = y = 0.0
    for index in range(count):
        segment = _segment(path, index)
        if not segment or not _point(segment, at, at + 4):
            return
        to_x = a * point[0] + c * point[1] + e
        to_y = b * point[0] + d * point[1] + f
        if _segment_type(segment) == raw.FPDF_SEGMENT_LINETO:
            yield min(x, to_x), min(y, to_y), max(x, to_x), max(y, to_y)
        x, y = to_x, to_y

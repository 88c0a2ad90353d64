"""Headers, footers and page numbers: lines that repeat at the edges of most pages.

A line goes only when it stands among the outer lines of more than 60 % of at least four pages,
with the same words, and its numbers the same or counting with the pages. The first occurrence of a
line without a page number stays: it may be the only place that names the document.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

_MIN_PAGES = 4
_SHARE = 0.6
_EDGE_LINES = 3
_MAX_CHARS = 120
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
    if not words or len(words) > _MAX_CHARS:
        return
    numbers = [int(number) for number in _NUMBER.findall(words)]
    pattern = _NUMBER.sub("#", words)
    if any(character.isalpha() for character in words):
        yield pattern, None, tuple(numbers)
    for place, number in enumerate(numbers[:3]):
        others = tuple(n for i, n in enumerate(numbers) if i != place)
        yield pattern, place, (number - page, *others)

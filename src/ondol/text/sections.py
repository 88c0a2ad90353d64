"""The sections of a text: what stands between one heading and the next, with the path above it.

Markdown headings and statute parts (편 > 장 > 절 > 관 > 조) nest in one ladder of levels; whoever
knows other headings gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ondol.text.structure import INK, Heading, lines


@dataclass(frozen=True, slots=True)
class Section:
    """Characters ``[start, end)`` under the headings of ``path``; ``bare`` if only the heading."""

    start: int
    end: int
    path: tuple[str, ...]
    bare: bool

    def __len__(self) -> int:
        return self.end - self.start


def headings(text: str) -> Iterator[Heading]:
    """Yield the Markdown and statute headings of ``text`` in order."""
    return (line.heading for line in lines(text) if line.heading is not None)


def sections(text: str, found: Iterable[Heading] | None = None) -> list[Section]:
    """Return the sections of ``text`` in order; they touch, and together they are the text.

    ``found`` are its headings in order, by default those of ``headings``.
    """
    parts: list[Section] = []
    stack: list[Heading] = []
    start, body = 0, 0
    for heading in headings(text) if found is None else found:
        if heading.start > start and INK.search(text, start, heading.start):
            parts.append(_section(text, start, heading.start, body, stack))
            start = heading.start
        while stack and stack[-1].level >= heading.level:
            stack.pop()
        stack.append(heading)
        body = heading.end
    parts.append(_section(text, start, len(text), body, stack))
    return parts


def _section(text: str, start: int, end: int, body: int, stack: list[Heading]) -> Section:
    path = tuple(heading.title for heading in stack)
    bare = bool(stack) and INK.search(text, max(start, body), end) is None
    return Section(start, end, path, bare)

"""Cuts a document into passages along its own joints.

Joints, best first: headings and statute articles, blank lines, sentences. A sentence is cut only
when it alone exceeds twice the target. Offsets are exact: ``document.text[start:end]`` is the
passage's text. Linear in the length of the text; knows no tokens and no model.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ondol.core.errors import InvalidInput
from ondol.core.types import Page, Passage, ReadDocument
from ondol.text.sections import Section, sections
from ondol.text.sentences import split_sentences

_WHOLE = 1.5  # a document up to this many targets, without inner headings, stays one passage
_TINY = 120  # characters up to which neighbouring sections may share a passage

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring sections cut together, with the heading path that holds for all of them."""

    start: int
    end: int
    path: tuple[str, ...]
    tiny: bool
    bare: bool

    def takes(self, section: _Group, *, target: int) -> bool:
        """Whether ``section`` below may share passages with this group."""
        if self.bare:
            return self.end - self.start < target // 2
        return self.tiny and section.tiny and not section.bare and section.end - self.start < target

    def joined(self, section: _Group) -> _Group:
        path = section.path if self.bare else _common(self.path, section.path)
        return _Group(self.start, section.end, path, section.tiny, section.bare)


def chunk(document: ReadDocument, *, target_chars: int, overlap_chars: int) -> list[Passage]:
    """Return the passages of ``document`` in order; none when it holds only white space.

    A passage holds at most ``2 * target_chars`` characters. Neighbours within one section repeat
    up to ``overlap_chars`` characters, in whole sentences. ``page`` is the page on which the
    passage starts, ``heading`` the path of headings above it, joined by `` > ``.
    Raises ``InvalidInput`` for a target below 1 or an overlap not below the target.
    """
    if target_chars < 1 or not 0 <= overlap_chars < target_chars:
        raise InvalidInput(
            f"chunk target {target_chars} and overlap {overlap_chars} do not fit together",
            hint="Choose a target of at least 1 and an overlap from 0 to below the target.",
            param="overlap_chars",
        )
    cut = _Cutter(document.text, target=target_chars, overlap=overlap_chars)
    passages: list[Passage] = []
    starts = [page.start for page in document.pages]
    for path, start, end in cut.ranges():
        passages.append(
            Passage(
                text=document.text[start:end],
                start=start,
                end=end,
                page=_page_at(document.pages, starts, start),
                heading=" > ".join(path),
            )
        )
    return passages


def _page_at(pages: Sequence[Page], starts: Sequence[int], offset: int) -> int | None:
    if not pages:
        return None
    return pages[max(0, bisect_right(starts, offset) - 1)].number


class _Cutter:
    """One document being cut: its text and the two lengths."""

    def __init__(self, text: str, *, target: int, overlap: int) -> None:
        self._text = text
        self._target = target
        self._overlap = overlap

    def ranges(self) -> Iterator[tuple[tuple[str, ...], int, int]]:
        """Yield heading path and character range of every passage."""
        sentences = split_sentences(self._text)
        if not sentences:
            return
        parts = sections(self._text)
        first, last = sentences[0][0], sentences[-1][1]
        if last - first <= _WHOLE * self._target and len(parts) == 1:
            yield parts[0].path, first, last
            return
        at = 0
        for group in self._groups(parts):
            upto = at
            while upto < len(sentences) and sentences[upto][0] < group.end:
                upto += 1
            for start, end in self._pack(sentences[at:upto]):
                yield group.path, start, end
            at = upto

    def _groups(self, parts: Sequence[Section]) -> Iterator[_Group]:
        """Join a bare heading to the section below it, and tiny neighbours to each other."""
        tiny = min(_TINY, self._target)
        held: _Group | None = None
        for part in parts:
            group = _Group(part.start, part.end, part.path, len(part) < tiny, part.bare)
            if held is not None and held.takes(group, target=self._target):
                held = held.joined(group)
                continue
            if held is not None:
                yield held
            held = group
        if held is not None:
            yield held

    def _pack(self, sentences: Sequence[Span]) -> list[Span]:
        """Fill passages with whole sentences up to the target, breaking at blank lines if it can."""
        packed: list[Span] = []
        held: list[Span] = []
        for sentence in self._fitting(sentences):
            while held and sentence[1] - held[0][0] > self._target:
                keep = self._break(held, after=packed[-1][1] if packed else 0)
                packed.append((held[0][0], held[keep - 1][1]))
                held = held[keep:] or self._repeated(held, sentence)
            held.append(sentence)
        if held:
            self._finish(packed, (held[0][0], held[-1][1]))
        return packed

    def _break(self, held: Sequence[Span], *, after: int) -> int:
        """Return how many sentences to keep: up to the last blank line past half the target.

        A passage must reach past ``after``, where the one before it ended.
        """
        for i in range(len(held) - 1, 0, -1):
            end = held[i - 1][1]
            if end - held[0][0] < self._target // 2 or end <= after:
                break
            if "\n\n" in self._text[held[i - 1][1] : held[i][0]]:
                return i
        return len(held)

    def _repeated(self, held: Sequence[Span], coming: Span) -> list[Span]:
        """Return the closing sentences of a full passage that the next one repeats."""
        end = held[-1][1]
        repeated: list[Span] = []
        for sentence in reversed(held[1:]):
            if end - sentence[0] > self._overlap or coming[1] - sentence[0] > self._target:
                break
            repeated.insert(0, sentence)
        return repeated

    def _finish(self, packed: list[Span], last: Span) -> None:
        """Add the last passage; a short one goes to its neighbour where there is room."""
        if packed and last[1] - last[0] < self._target // 4:
            start = packed[-1][0]
            if last[1] - start <= _WHOLE * self._target:
                packed[-1] = (start, last[1])
                return
        packed.append(last)

    def _fitting(self, sentences: Sequence[Span]) -> Iterator[Span]:
        """Yield sentences, those above twice the target cut at line breaks or spaces."""
        for start, end in sentences:
            if end - start <= 2 * self._target:
                yield start, end
            else:
                yield from self._cut(start, end)

    def _cut(self, start: int, end: int) -> Iterator[Span]:
        while end - start > self._target:
            stop = self._cut_at(start)
            yield start, len(self._text[start:stop].rstrip()) + start
            start = stop
            while self._text[start].isspace():
                start += 1
        yield start, end

    def _cut_at(self, start: int) -> int:
        limit = start + self._target
        floor = start + max(1, self._target // 2)
        newline = self._text.rfind("\n", floor, limit)
        if newline > 0:
            return newline
        for i in range(limit - 1, floor, -1):
            if self._text[i].isspace():
                return i
        while limit > floor and unicodedata.combining(self._text[limit]):
            limit -= 1
        return limit


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    shared: list[str] = []
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared.append(a)
    return tuple(shared)

"""Cuts a document into passages along its own joints.

What the joints are depends on what it is: a statute, a judgment, a record, a text with headings, or
none of these (``chunk_plan``). A sentence is cut only when it alone exceeds twice the target. Offsets
are exact: ``document.text[start:end]`` is the passage's text. Linear in the length of the text; knows
no tokens and no model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ondol.core.chunk_options import ChunkStrategy
from ondol.core.errors import InvalidInput
from ondol.core.types import Page, Passage, ReadDocument
from ondol.documents.chunking.chunk_packing import Packer, Span
from ondol.documents.chunking.chunk_plan import PARENT, ChunkPlan, plan
from ondol.language.sentences import split_sentences
from ondol.language.structure import TextSection

_TINY = 120  # characters up to which neighbouring sections may share a passage


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring sections ``[first, last]`` cut together, with the path that holds for all."""

    first: int
    last: int
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
        return _Group(
            self.first, section.last, self.start, section.end, path, section.tiny, section.bare
        )


def chunk(
    document: ReadDocument,
    *,
    target_chars: int,
    overlap_chars: int,
    strategy: ChunkStrategy = "auto",
) -> list[Passage]:
    """Return the passages of ``document`` in order; none when it holds only white space.

    A passage holds at most ``2 * target_chars`` characters, or is a whole record. Neighbours within
    one section repeat up to ``overlap_chars`` characters, in whole sentences. ``page`` is the page
    on which the passage starts, ``heading`` the path of headings above it, joined by `` > ``,
    ``parent`` what is read around it. Raises ``InvalidInput`` for a target below 1 or an overlap
    not below the target.
    """
    if target_chars < 1 or not 0 <= overlap_chars < target_chars:
        raise InvalidInput(
            f"chunk target {target_chars} and overlap {overlap_chars} do not fit together",
            hint="Choose a target of at least 1 and an overlap from 0 to below the target.",
            param="overlap_chars",
        )
    how = plan(document, strategy, target=target_chars)
    cut = _Cutter(document, how, target=target_chars, overlap=overlap_chars)
    return list(cut.passages())


class _Cutter:
    """One document being cut as planned."""

    def __init__(
        self, document: ReadDocument, how: ChunkPlan, *, target: int, overlap: int
    ) -> None:
        self._document = document
        self._plan = how
        self._target = target
        self._packer = Packer(document.text, target=target, overlap=overlap, joint=how.joint)
        self._starts = [page.start for page in document.pages]

    def passages(self) -> Iterator[Passage]:
        sentences = _parted(self._document.text, self._plan.parts)
        at = 0
        for group in self._groups(self._plan.parts):
            upto = at
            while upto < len(sentences) and sentences[upto][0] < group.end:
                upto += 1
            spans = self._packer.pack(sentences[at:upto], whole=self._plan.whole)
            parent = self._parent(group)
            for span in spans:
                yield self._passage(span, self._path(group, span, len(spans)), parent)
            at = upto

    def _passage(self, span: Span, path: Sequence[str], parent: Span) -> Passage:
        start, end = span
        pages: Sequence[Page] = self._document.pages
        page = pages[max(0, bisect_right(self._starts, start) - 1)].number if pages else None
        return Passage(
            text=self._document.text[start:end],
            start=start,
            end=end,
            page=page,
            heading=" > ".join(path),
            parent=parent,
        )

    def _path(self, group: _Group, span: Span, passages: int) -> tuple[str, ...]:
        path = (*self._plan.root, *group.path)
        label = self._plan.label
        if label is None or passages == 1 or group.first != group.last:
            return path
        clause = label(group.start, group.end, span[0])
        return (*path, clause) if clause else path

    def _groups(self, parts: Sequence[TextSection]) -> Iterator[_Group]:
        """Join a bare heading to the section below it, and tiny neighbours to each other."""
        tiny = min(_TINY, self._target)
        held: _Group | None = None
        for at, part in enumerate(parts):
            group = _Group(at, at, part.start, part.end, part.path, len(part) < tiny, part.bare)
            if held is not None and self._together(held, group):
                held = held.joined(group)
                continue
            if held is not None:
                yield held
            held = group
        if held is not None:
            yield held

    def _together(self, held: _Group, coming: _Group) -> bool:
        joins = self._plan.joins
        if not held.bare and not joins(self._plan.parts[held.last].path, coming.path):
            return False
        return held.takes(coming, target=self._target)

    def _parent(self, group: _Group) -> Span:
        """Return the section to read around a group's passages: its own, or a small one above."""
        first, last = group.first, group.last
        depth = len(group.path) if self._plan.climbs else 0
        for level in range(depth, 0, -1):
            wider = self._run(first, last, group.path[:level])
            if wider is None:
                break
            first, last = wider
        return self._plan.parts[first].start, self._plan.parts[last].end

    def _run(self, first: int, last: int, path: tuple[str, ...]) -> tuple[int, int] | None:
        """Widen ``[first, last]`` to all neighbours under ``path``; ``None`` where that is too much."""
        parts = self._plan.parts
        floor, ceiling = first, last
        while floor > 0 and parts[floor - 1].path[: len(path)] == path:
            floor -= 1
            if parts[last].end - parts[floor].start > PARENT:
                return None
        while ceiling + 1 < len(parts) and parts[ceiling + 1].path[: len(path)] == path:
            ceiling += 1
            if parts[ceiling].end - parts[floor].start > PARENT:
                return None
        return floor, ceiling


def _parted(text: str, parts: Sequence[TextSection]) -> list[Span]:
    """Return the sentences of ``text``, none of which reaches from one section into the next."""
    found: list[Span] = []
    at = 0
    for start, end in split_sentences(text):
        while at < len(parts) and parts[at].start <= start:
            at += 1
        while at < len(parts) and parts[at].start < end:
            stop = len(text[start : parts[at].start].rstrip()) + start
            found.append((start, stop))
            start = parts[at].start
            while text[start].isspace():
                start += 1
            at += 1
        found.append((start, end))
    return found


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    shared: list[str] = []
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared.append(a)
    return tuple(shared)

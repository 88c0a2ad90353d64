"""What a document is cut by: its kind, its sections, what stays whole, what is read around a hit.

One plan for each strategy; ``auto`` recognises the kind from the document itself, so that the same
text is always cut the same way. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ondol.core.chunk_options import ChunkStrategy
from ondol.core.types import ReadDocument
from ondol.documents.chunking.chunk_packing import SLACK, Joint, blank_line
from ondol.language.structure import TextSection, sections
from ondol.packs.legal.judgment import is_judgment, judgment_headings, names_part
from ondol.packs.legal.statute import (
    StatuteClause,
    chapter_of,
    clause_at,
    clauses,
    is_article,
    is_statute,
    joint,
    law_of,
)

RECORD = "application/json"
"""The media type of one record of a file."""

PARENT = 1600
"""Characters up to which an enclosing section is read whole around a hit."""

RECORD_TOKENS = 480
"""Tokens up to which a record is one passage: what an encoder of 512 reads beside a title.

Estimated at 0.7 a wide character and 0.27 any other. The tokenizer of multilingual-e5-small makes
0.86 to 0.92 of the estimate of English corpora, 0.95 to 1.02 of Korean ones and 1.1 of reviews; of
11,353 shared records that fit so, 3 are longer than 512 tokens, with their titles 9.
"""

Label = Callable[[int, int, int], str]
Path = tuple[str, ...]
Joins = Callable[[Path, Path], bool]


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """``parts`` are the sections; one of at most ``whole`` characters is one passage.

    ``root`` stands before every path. ``label`` names the clause in which an offset of a section
    ``[start, end)`` stands. ``joins`` says whether two tiny neighbours may share a passage.
    ``climbs``: a small section is read with those around it.
    """

    parts: Sequence[TextSection]
    whole: int = 0
    root: Path = ()
    joint: Joint = blank_line
    label: Label | None = None
    joins: Joins = lambda one, other: True
    climbs: bool = False


def kind_of(document: ReadDocument) -> ChunkStrategy:
    """Return the strategy that suits ``document``, never ``auto``."""
    if is_statute(document):
        return "statute"
    if is_judgment(document):
        return "judgment"
    if document.media_type == RECORD:
        return "record"
    return "heading" if len(sections(document.text)) > 1 else "recursive"


def plan(document: ReadDocument, strategy: ChunkStrategy, *, target: int) -> ChunkPlan:
    """Return how ``document`` is cut under ``strategy`` with passages of about ``target``."""
    kind = kind_of(document) if strategy == "auto" else strategy
    if kind == "statute":
        return _statute(document, target)
    if kind == "judgment":
        found = sections(document.text, judgment_headings(document.text))
        return ChunkPlan(
            found,
            whole=int(SLACK * target),
            root=_name(document, found),
            joins=lambda one, other: _siblings(one, other) and not names_part(one, other),
            climbs=True,
        )
    if kind == "record":
        return _record(document, target)
    if kind == "recursive":
        return _one(document, target)
    found = sections(document.text)
    return ChunkPlan(found, whole=int(SLACK * target) if len(found) == 1 else 0, climbs=True)


def _statute(document: ReadDocument, target: int) -> ChunkPlan:
    label = _Clauses(document.text)
    whole = int(SLACK * target)
    if is_article(document):
        part = TextSection(0, len(document.text), chapter_of(document), False)
        return ChunkPlan([part], whole=whole, joint=joint, label=label)
    law = law_of(document)
    found = sections(document.text)
    root = (law,) if law else ()
    return ChunkPlan(found, whole=whole, root=root, joint=joint, label=label, joins=_siblings)


def _record(document: ReadDocument, target: int) -> ChunkPlan:
    if _tokens(document.text) <= RECORD_TOKENS:
        return _one(document, target, whole=len(document.text))
    found = sections(document.text)
    return ChunkPlan(found, whole=int(SLACK * target) if len(found) == 1 else 0, climbs=True)


def _one(document: ReadDocument, target: int, *, whole: int = 0) -> ChunkPlan:
    part = TextSection(0, len(document.text), (), False)
    return ChunkPlan([part], whole=whole or int(SLACK * target))


def _name(document: ReadDocument, found: Sequence[TextSection]) -> tuple[str, ...]:
    """Return the title as the root of every path, unless it is a heading of its own."""
    title = " ".join(document.title.split())
    own = any(part.path[:1] == (title,) for part in found)
    return () if own or not title else (title,)


def _siblings(one: Path, other: Path) -> bool:
    return one[:-1] == other[:-1]


def _tokens(text: str) -> float:
    wide = sum(1 for character in text if ord(character) > 0x2E80)
    return 0.7 * wide + 0.27 * (len(text) - wide)


class _Clauses:
    """Names clauses, reading each section once however many passages it has."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._range = (-1, -1)
        self._found: list[StatuteClause] = []

    def __call__(self, start: int, end: int, offset: int) -> str:
        if self._range != (start, end):
            self._range = (start, end)
            self._found = clauses(self._text, start, end)
        return clause_at(self._found, offset)

"""Statutes and what is written like them: 편 > 장 > 절 > 관 > 조, and within an article 항, 호, 목.

Tells whether a document is one, what law it is, and which 항 and 호 an offset stands in. Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ondol.core.types import ReadDocument
from ondol.language.structure import ARTICLE_LEVEL, heading_at, lines

_ENOUGH = 3  # articles from which on a text is a statute
_LOOKED_AT = 400  # headings looked at to tell
_RISING = 0.7  # share of articles that follow a lower one; a text that merely cites has no order

_NUMBER = re.compile(r"제\s?(\d{1,5})\s?조")
_ENDS = "법|법률|령|규칙|규정|조례|약관|지침|세칙|정관|협약|규약|내규|고시|훈령|예규"
_LAW = re.compile(
    rf"[「『]?([가-힣A-Za-z0-9·ㆍ()（）,\s]{{0,60}}(?:{_ENDS}))[」』]?\s{{0,3}}(?:[\[(（<].{{0,80}})?"
)
_ARTICLE_TITLE = re.compile(
    rf"[^()\[\]<>（]{{0,60}}(?:{_ENDS})[」』]?\s{{1,3}}제\s?\d{{1,5}}\s?조(?:\s?의\s?\d{{1,3}})?(?:$|[\s(（])"
)
_STEP = re.compile(r"\s>\s")  # not the end of "<개정 2010.3.31>"
_HEAD_LINES = 5
_PARAGRAPHS = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳㉑㉒㉓㉔㉕㉖㉗㉘㉙㉚㉛㉜㉝㉞㉟"
_MARK = re.compile(
    rf"[ \t\u3000]*(?:([{_PARAGRAPHS}])|(\d{{1,3}})(?:의(\d{{1,2}}))?\.[ \t\u3000]*(?!\d)|([가-하])\.[ \t\u3000])"
)
_INLINE = re.compile(rf"(?<=[)）>\]])[ \t\u3000]*([{_PARAGRAPHS}])")


@dataclass(frozen=True, slots=True)
class StatuteClause:
    """Where a 항 or 호 begins, and what it is called: ``제2항``, ``제2항 제3호``."""

    start: int
    name: str


def is_statute(document: ReadDocument) -> bool:
    """Return whether ``document`` is an article of a law or is ordered by articles."""
    return is_article(document) or _has_articles(document.text)


def is_article(document: ReadDocument) -> bool:
    """Return whether the title is a law's name and an article: ``민법 제750조(…)``."""
    return _ARTICLE_TITLE.match(document.title) is not None


def law_of(document: ReadDocument) -> str:
    """Return the name the articles go under: the title if it names a law, else the first lines'.

    A document that names none goes under its title; an article that is a document of its own has
    its law there already, so it goes under nothing.
    """
    if is_article(document):
        return ""
    title = _LAW.fullmatch(document.title.strip())
    if title is not None:
        return _one_line(title[1])
    for number, line in enumerate(lines(document.text)):
        if number >= _HEAD_LINES or (line.heading is not None and line.heading.level > 6):
            break
        named = _LAW.fullmatch(document.text[line.start : line.end].lstrip("# \t\u3000").rstrip())
        if named is not None:
            return _one_line(named[1])
    return _one_line(document.title)


def chapter_of(document: ReadDocument) -> tuple[str, ...]:
    """Return the chapters a record of one article says it stands in (``metadata.chapter``)."""
    chapter = document.metadata.get("chapter")
    if not isinstance(chapter, str) or not is_article(document):
        return ()
    return tuple(part for part in map(_one_line, _STEP.split(chapter[:300])) if part)


def clauses(text: str, start: int, end: int) -> list[StatuteClause]:
    """Return the 항 and 호 that begin in the article ``text[start:end]``, in order."""
    found: list[StatuteClause] = []
    paragraph, item = "", 0
    for at, match in _marks(text, start, end):
        if match[1]:
            paragraph, item = f"제{_PARAGRAPHS.index(match[1]) + 1}항", 0
            found.append(StatuteClause(at, paragraph))
        elif match.re is _MARK and match[2] and item <= int(match[2]) <= item + 1:
            item = int(match[2])
            branch = f"의{match[3]}" if match[3] else ""
            found.append(StatuteClause(at, f"{paragraph} 제{item}호{branch}".strip()))
    return found


def clause_at(found: list[StatuteClause], offset: int) -> str:
    """Return the name of the clause ``offset`` stands in, nothing before the first."""
    at = bisect_right(found, offset, key=lambda clause: clause.start)
    return found[at - 1].name if at else ""


def joint(text: str, end: int, start: int) -> int:
    """Return how strong the gap before ``start`` is: before a 항 4, 호 3, 목 2, blank line 1."""
    heading = heading_at(text, start)
    match = _MARK.match(text, start)
    if heading is not None or (match is not None and match[1]):
        return 4
    if match is not None and "\n" in text[end:start]:
        return 3 if match[2] else 2
    return int("\n\n" in text[end:start])


def _marks(text: str, start: int, end: int) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield offset and match of what begins a clause: a line, or ``①`` behind an article's head."""
    at = start
    while at < end:
        stop = text.find("\n", at, end)
        stop = end if stop < 0 else stop
        match = _MARK.match(text, at, stop)
        if match is None:
            match = _INLINE.search(text, at, min(stop, at + 200))
        if match is not None:
            yield match.end() - len(match[0].lstrip()), match
        at = stop + 1


def _has_articles(text: str) -> bool:
    numbers: list[int] = []
    seen = 0
    for line in lines(text):
        if line.heading is None:
            continue
        seen += 1
        if line.heading.level == ARTICLE_LEVEL:
            number = _NUMBER.match(line.heading.title)
            numbers += [int(number[1])] if number else []
        if seen >= _LOOKED_AT:
            break
    if len(numbers) < _ENOUGH or 2 * len(numbers) < seen:
        return False
    rising = sum(1 for one, following in pairwise(numbers) if following >= one)
    return rising >= _RISING * (len(numbers) - 1)


def _one_line(title: str) -> str:
    return " ".join(title.split())

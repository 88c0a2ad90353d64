"""Judgments: 판시사항, 판결요지, 참조조문, 참조판례, 전문, 주문, 청구취지, 이유 and what stands below them.

Knows the forms they come in: 【주    문】, a Markdown heading, a line of its own with its letters set
apart (주 문). Below 이유 the numbered points (1., 가., 1), 가)) are headings, below 판시사항 and 판결요지 the
items [1], [2]. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ondol.core.types import ReadDocument
from ondol.language.structure import LINE, Heading, headings

_WRAPPERS = frozenset(("전문", "판례내용", "판결내용"))
_DIGESTS = frozenset(("판시사항", "판결요지", "결정요지", "심판요지"))
_REFERENCES = frozenset(("참조조문", "참조판례", "심판대상조문"))
_OUTCOMES = frozenset(
    ("주문", "청구취지", "항소취지", "상고취지", "신청취지", "재심청구취지", "부대항소취지")
)
_REASONS = frozenset(
    ("이유", "청구원인", "범죄사실", "증거의요지", "법령의적용", "양형의이유", "무죄부분", "판단")
)
_NAMES = _WRAPPERS | _DIGESTS | _REFERENCES | _OUTCOMES | _REASONS

_BRACKETED = re.compile(r"[ \t\u3000]{0,40}【([^】\n]{1,40})】")
_ALONE = re.compile(
    r"[ \t\u3000]{0,80}([가-힣](?:[ \t\u3000]{0,12}[가-힣]){1,7})[ \t\u3000]*(?=\n|$)"
)
_ITEM = re.compile(r"[ \t\u3000]{0,20}(\[\d{1,2}\])(?=[^\n])")
_POINTS = (
    re.compile(r"[ \t\u3000]{0,40}(\d{1,2})\.[ \t\u3000]{1,20}(?!\d)(?=\S)"),
    re.compile(r"[ \t\u3000]{0,40}([가-하])\.[ \t\u3000]{1,20}(?=\S)"),
    re.compile(r"[ \t\u3000]{0,40}(\d{1,2})\)[ \t\u3000]{0,20}(?=\S)"),
    re.compile(r"[ \t\u3000]{0,40}([가-하])\)[ \t\u3000]{0,20}(?=\S)"),
)
_LETTERS = "가나다라마바사아자차카타파하"
_SENTENCE_END = re.compile(r"(?:[.!?。]|다\.?)\s*$")
_LEVEL = 7  # below Markdown's six: 전문 7, 주문 and 이유 8, 1. and [1] 9, 가. 10, 1) 11, 가) 12
_TITLE = 80


def is_judgment(document: ReadDocument) -> bool:
    """Return whether the text has an order with reasons (주문, 이유) or a digest of its points.

    A digest is told by lenticular brackets (【판결요지】) or by another part beside it.
    """
    found: set[str] = set()
    for heading in judgment_headings(document.text):
        title = _squeezed(heading.title)
        found.add(title)
        if title in _DIGESTS and "【" in document.text[heading.start : heading.end]:
            return True
        if {"주문", "이유"} <= found or (found & _DIGESTS and len(found & _NAMES) >= 2):
            return True
    return False


def names_part(*paths: tuple[str, ...]) -> bool:
    """Return whether any of ``paths`` ends in the name of a part: 주문 shares no passage."""
    return any(path and _squeezed(path[-1]) in _NAMES for path in paths)


def judgment_headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a judgment in order, Markdown's included."""
    known = {heading.start: heading for heading in headings(text) if heading.level < _LEVEL}
    points = _Points()
    section = ""
    for match in LINE.finditer(text):
        start, end = match.span()
        heading = known.get(start) or _named(text, start)
        if heading is not None:
            section = _squeezed(heading.title)
            points = _Points()
        elif section in _DIGESTS:
            heading = _item(text, start)
        elif section in _REASONS:
            heading = points.heading(text, start, end)
        if heading is not None:
            yield heading


def _named(text: str, start: int) -> Heading | None:
    """Return the heading of a section: in lenticular brackets, or alone in its line."""
    match = _BRACKETED.match(text, start)
    if match is not None:
        title = _squeezed(match[1])
        shown = title if title in _NAMES else " ".join(match[1].split())
        return Heading(start, match.end(), _LEVEL + (title not in _WRAPPERS), shown)
    match = _ALONE.match(text, start)
    if match is None:
        return None
    title = _squeezed(match[1])
    if title not in _NAMES - {"판단"}:
        return None
    return Heading(start, match.end(), _LEVEL + (title not in _WRAPPERS), title)


def _item(text: str, start: int) -> Heading | None:
    match = _ITEM.match(text, start)
    return Heading(start, match.end(), _LEVEL + 2, match[1]) if match is not None else None


class _Points:
    """The numbered points of one section: a number counts only where it is the next one."""

    def __init__(self) -> None:
        self._last = [0] * len(_POINTS)

    def heading(self, text: str, start: int, end: int) -> Heading | None:
        for depth, pattern in enumerate(_POINTS):
            match = pattern.match(text, start, end)
            if match is None:
                continue
            place = _place(match[1])
            if place not in (1, self._last[depth] + 1) or (depth == 0 and place <= self._last[0]):
                return None
            self._last[depth] = place
            self._last[depth + 1 :] = [0] * (len(_POINTS) - depth - 1)
            line = " ".join(text[start : min(end, start + 4 * _TITLE)].split())
            long = len(line) > _TITLE or _SENTENCE_END.search(line) is not None
            title = match[0].strip() if long else line
            return Heading(start, match.end() if long else end, _LEVEL + 2 + depth, title)
        return None


def _place(mark: str) -> int:
    return int(mark) if mark.isdecimal() else _LETTERS.find(mark) + 1


def _squeezed(title: str) -> str:
    return "".join(title.split())

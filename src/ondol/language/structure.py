"""What the start of a line says: a heading, a statute's chapter or article, a list item, a row.

Shared by sentence splitting and chunking. Looks at bounded windows only, so that a scan over all
lines stays linear. Knows Markdown and the layout of Korean statutes.

The sections of a text: what stands between one heading and the next, with the path above it.

Markdown headings and statute parts (편 > 장 > 절 > 관 > 조) nest in one ladder of levels; whoever
knows other headings gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LINE = re.compile(r"[^\n]+")

_MARKDOWN = re.compile(r" {0,3}(#{1,6})[ \t]+(\S[^\n]{0,200})")
_CHAPTER = re.compile(
    r"[ \t\u3000]*(제\s?\d{1,4}\s?(편|장|절|관)(?:의\s?\d{1,3})?(?=[ \t\u3000\n(]|$)[^\n]{0,60})(?=\n|$)"
)
_ADDENDA = re.compile(r"[ \t\u3000]*(부\s{0,3}칙(?=\s|<|\(|$)[^\n]{0,60})(?=\n|$)")
_ARTICLE = re.compile(
    r"[ \t\u3000]*(제\s?\d{1,5}\s?조(?:\s?의\s?\d{1,3})?"
    r"(?:\s?[(（][^()（）\n]{1,80}(?:[(（][^()（）\n]{1,60}[)）][^()（）\n]{0,60})?[)）](?=[\s①-⑳<\[]|$)"
    r"|(?=\s{1,3}(?:삭\s?제|\[|<))))"
)
_ITEM = re.compile(
    r"[ \t\u3000]*(?:"
    r"[-*+•‣·◦○●◎▪▫■□◆◇▶▷➢※⁃–—][ \t\u3000]+\S"
    r"|[•‣◦○●◎▪▫■□◆◇▶▷➢※①-⑳⑴-⒇㉠-㉻㈀-㈛]"
    r"|\d{1,3}[.)][ \t\u3000]+(?!\d{1,2}\s?\.)\S"
    r"|[(（](?:\d{1,3}|[가-하]|[a-zA-Z]|[ivx]{1,5})[)）][ \t\u3000]*\S"
    r"|[가-하][)）][ \t\u3000]+\S"
    r"|[IVX]{1,5}\.[ \t\u3000]+\S"
    r"|【[^】\n]{1,40}】"
    r"|\||```|~~~|[-*_=]{3,}[ \t]*(?=\n|$))"
)
_ROW = re.compile(r"[ \t]*(?:\||```|~~~|[-*_=]{3,}[ \t]*(?=\n|$))")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_LETTERED = re.compile(r"[ \t\u3000]*([가나다라마바사아자차카타파하])\.[ \t\u3000]+\S")
_LETTERS = "가나다라마바사아자차카타파하"
_SENTENCE_END = re.compile(r"[.!?。]\s*$")

_CHAPTER_LEVELS = {"편": 7, "장": 8, "절": 9, "관": 10}
ARTICLE_LEVEL = 11


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading line: where it starts and its title ends, its level (1–6 Markdown, 7–11 statute)."""

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class TextLine:
    """One non-blank line and how it stands to its neighbours.

    ``opens``: no sentence runs into it from above. ``closes``: none runs out of it.
    ``after_blank``: a blank line stands above.
    """

    start: int
    end: int
    opens: bool
    closes: bool
    after_blank: bool
    heading: Heading | None


def heading_at(text: str, position: int) -> Heading | None:
    """Return the heading whose line starts at ``position``, or ``None``."""
    match = _MARKDOWN.match(text, position)
    if match:
        title = match[2].rstrip().rstrip("#").rstrip()
        return Heading(position, match.end(), len(match[1]), title or match[2].strip())
    match = _CHAPTER.match(text, position)
    if match and not _SENTENCE_END.search(match[1]):
        return Heading(position, match.end(), _CHAPTER_LEVELS[match[2]], _one_line(match[1]))
    match = _ADDENDA.match(text, position)
    if match:
        return Heading(position, match.end(), _CHAPTER_LEVELS["편"], _one_line(match[1]))
    match = _ARTICLE.match(text, position)
    if match:
        return Heading(position, match.end(), ARTICLE_LEVEL, _one_line(match[1]))
    return None


def lines(text: str) -> Iterator[TextLine]:
    """Yield every non-blank line of ``text`` in order. Lines inside code fences are no headings."""
    letter = -1
    fence = ""
    previous_end = -1
    for match in LINE.finditer(text):
        start, end = match.span()
        if not _has_ink(text, start, end):
            continue
        after_blank = previous_end >= 0 and text.count("\n", previous_end, start) > 1
        previous_end = end
        heading = None if fence else heading_at(text, start)
        lettered = _LETTERED.match(text, start)
        if lettered:
            place = _LETTERS.index(lettered[1])
            # Korean wraps anywhere: "…한⏎다. 그러나" must not look like item "다."
            lettered_item = place == 0 or place == letter + 1
            letter = place if lettered_item else letter
        else:
            lettered_item = False
        opens = bool(heading or lettered_item or fence or _ITEM.match(text, start))
        row = bool(fence or _ROW.match(text, start))
        closes = row or (heading is not None and heading.level < ARTICLE_LEVEL)
        fence = _fence_after(text, start, fence)
        yield TextLine(start, end, opens, closes, after_blank, heading)


def _fence_after(text: str, start: int, fence: str) -> str:
    match = _FENCE.match(text, start)
    if match is None:
        return fence
    if not fence:
        return match[1]
    return "" if match[1] == fence else fence


def _has_ink(text: str, start: int, end: int) -> bool:
    return not text[start].isspace() or INK.search(text, start, end) is not None


def _one_line(title: str) -> str:
    return " ".join(title.split())


INK = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class TextSection:
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


def sections(text: str, found: Iterable[Heading] | None = None) -> list[TextSection]:
    """Return the sections of ``text`` in order; they touch, and together they are the text.

    ``found`` are its headings in order, by default those of ``headings``.
    """
    parts: list[TextSection] = []
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


def _section(text: str, start: int, end: int, body: int, stack: list[Heading]) -> TextSection:
    path = tuple(heading.title for heading in stack)
    bare = bool(stack) and INK.search(text, max(start, body), end) is None
    return TextSection(start, end, path, bare)

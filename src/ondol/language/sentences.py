"""Where sentences stand, in Korean and English, by rules.

Spans cover all text that is not white space and never overlap. PDF text breaks lines anywhere, so
a single newline ends a sentence only before a heading, list item, row or article, or after a
heading. Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ondol.language.structure import INK, lines

_CLOSERS = "\"'”’」』)\\]》〉】）］＂＇"
_TERMINATOR = re.compile(rf"(?:[.!?。！？]+|[…‥]+)[.!?…]*((?:\[\d{{1,3}}\]|[{_CLOSERS}])*)")
_MARK_AFTER_NOTE = re.compile(r"(?<=[>\]])[ \t\u3000]+(?=[①-⑳])")
_STOP = re.compile(f"{_TERMINATOR.pattern}|{_MARK_AFTER_NOTE.pattern}")
_SPACES = re.compile(r"\s*")
_LABEL = re.compile(
    r"[(（]?(?:제?\s?\d{1,5}(?:\.\d{1,3}){0,3}\s?(?:조|장|항|호|절|편)?(?:의\s?\d{1,3})?"
    r"|[가나다라마바사아자차카타파하]|[A-Za-z]|[IVXivx]{1,5})[)）]?"
)
_LABEL_CHARS = 16
_WORD = re.compile(r"[A-Za-z](?:[A-Za-z.]*[A-Za-z])?$")
_WORD_CHARS = 24
_QUOTING = re.compile(r"이?라[고는며면]|하[고며는]\s")
_PARTICLE = re.compile(r"[은는이가을를의도와과고]\s|이[다며]")  # stands at a closing quote only
_ENDINGS = frozenset("다요까죠음임함됨니네오세라자지군나래데걸게")
_STRONG_ENDINGS = frozenset("다요까죠음임함됨")
_ABBREVIATIONS = """
    mr mrs ms dr prof st no nos fig figs eq eqs sec art arts vs cf e.g i.e al inc ltd co corp
    vol ch pp ed eds approx dept est gen gov rep sen rev hon jan feb mar apr jun jul aug sep
    sept oct nov dec u.s u.k u.n ph.d resp viz ca op cit ibid para paras
"""
_NEVER = frozenset(_ABBREVIATIONS.split())


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return ``(start, end)`` of every sentence of ``text``, in order, white space trimmed."""
    spans: list[tuple[int, int]] = []
    for start, end in _blocks(text):
        opened = start
        for stop in _stops(text, start, end):
            _append(spans, text, opened, stop)
            opened = stop
        _append(spans, text, opened, end)
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    first = INK.search(text, start, end)
    if first is None:
        return
    while text[end - 1].isspace():
        end -= 1
    spans.append((first.start(), end))


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Yield ranges that no sentence leaves: paragraphs, headings, list items, rows."""
    start = -1
    end = 0
    closed = False
    for line in lines(text):
        if start >= 0 and (line.opens or line.after_blank or closed):
            yield start, end
            start = line.start
        elif start < 0:
            start = line.start
        end = line.end
        closed = line.closes
    if start >= 0:
        yield start, end


def _stops(text: str, start: int, end: int) -> Iterator[int]:
    """Yield the ends of sentences inside one block, the block's own end excluded."""
    opened = start
    for match in _STOP.finditer(text, start, end):
        stop = match.end()
        if stop >= end:
            return
        if match[0][0].isspace() or _ends_sentence(text, opened, match, end):
            yield stop
            opened = stop


def _ends_sentence(text: str, opened: int, match: re.Match[str], end: int) -> bool:
    stop = match.end()
    gap = _SPACES.match(text, stop, end)
    after = gap.end() if gap else stop
    if after >= end:
        return True
    spaced = after > stop
    mark = match[0][0]
    before = text[match.start() - 1] if match.start() > opened else ""
    if _goes_on_after_quote(text, match, after, end):
        return False
    if mark in "…‥" or match[0].startswith(".."):
        return spaced and (before in _STRONG_ENDINGS or text[after].isupper())
    if mark != ".":
        return _ends_at_mark(text, after, spaced=spaced)
    return _ends_at_period(text, opened, match, after, spaced=spaced)


def _goes_on_after_quote(text: str, match: re.Match[str], after: int, end: int) -> bool:
    """Whether what was quoted is part of a longer sentence: “…했다.”라고 말했다."""
    spaced = after > match.end()
    if match[1]:
        if not spaced and _PARTICLE.match(text, after, end):
            return True
        return _QUOTING.match(text, after, end) is not None
    return not spaced and match[0][0] != "." and _QUOTING.match(text, after, end) is not None


def _ends_at_mark(text: str, after: int, *, spaced: bool) -> bool:
    following = text[after]
    return not following.islower() if spaced else _is_hangul(following) or following.isupper()


def _ends_at_period(
    text: str, opened: int, match: re.Match[str], after: int, *, spaced: bool
) -> bool:
    at = match.start()
    before = text[at - 1] if at > opened else ""
    following = text[after]
    if not before or (not match[1] and _is_label(text, opened, at)):
        return False
    if not spaced:
        return _ends_unspaced(text, opened, at, following)
    if following.islower() and following.isascii():
        return False
    if match[1]:
        return True
    if before.isdigit():
        return following.isupper() and not _is_date_part(text, opened, at)
    if before.isascii() and before.isalpha():
        return not _is_abbreviation(text, opened, at)
    return True


def _ends_unspaced(text: str, opened: int, at: int, following: str) -> bool:
    """A Korean ending may be followed by the next sentence without a space."""
    before = text[at - 1]
    if before not in _ENDINGS or at - 2 < opened or not _is_hangul(text[at - 2]):
        return False
    return _is_hangul(following) or following.isupper() or following in "“‘「『(<[①②③④⑤⑥⑦⑧⑨⑩\"'"


def _is_label(text: str, opened: int, at: int) -> bool:
    """Whether all the sentence has so far is a list number or an article number."""
    if at - opened > _LABEL_CHARS:
        return False
    return _LABEL.fullmatch(text[opened:at].strip()) is not None


def _is_abbreviation(text: str, opened: int, at: int) -> bool:
    word = _WORD.search(text[max(opened, at - _WORD_CHARS) : at])
    if word is None:
        return False
    return (len(word[0]) == 1 and word[0].isupper()) or word[0].lower() in _NEVER


def _is_date_part(text: str, opened: int, at: int) -> bool:
    """Whether the period closes the day of a Korean date such as ``2019. 5. 30.``"""
    return re.search(r"\d\.\s?\d{1,2}$", text[max(opened, at - 8) : at]) is not None


def _is_hangul(character: str) -> bool:
    return "가" <= character <= "힣"

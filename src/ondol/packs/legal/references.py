"""Exact references in Korean text: case numbers and articles of laws, each as look-up keys.

A query and the record it means come to the same key, however they are spelled: ``민법 제750조``,
``민법 750조``, ``민750``; ``2019 다 12345``, ``2019다12345``. A key is letters and digits only and
begins with ``ref``, which no keyword of Korean text does, so it can stand among the keywords of a
passage. Pure.

The law a conversation speaks of, for an article that is named without one.

After ``민법 제750조`` or ``민법에서는``, ``제751조`` is one of 민법. A law counts only where its name stands
in the text: with an article, or alone as a noun. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ondol.language.language import has_hangul
from ondol.language.normalise import folded
from ondol.language.terms import CASE_MARKS, Term, find_terms, noun_may_end
from ondol.packs.legal.law_names import law_names, squeezed

MAX_CHARS = 4_000
MAX_REFERENCES = 16

_CASE = re.compile(r"(\d{4}|\d\d)([가-힣]{1,3})(\d{1,7})")
_MORE = re.compile(r"\s?[,·]\s?(\d{2,7})(?![\d가-힣A-Za-z.])")
# Too little for a keyword (one digit between blanks, a year of two digits apart from its mark); a
# look-up that finds nothing harms nothing.
_SPACED = re.compile(
    rf"(?<![\d.,])((?:19|20)?\d\d)(?=\s|[가-힣]{{1,3}}\s)\s{{0,2}}({CASE_MARKS})\s{{0,2}}(\d{{1,7}})"
    r"(?![\d.,]?\d)"
)
_ARTICLE = re.compile(r"제\d{1,5}조(?:의\d{1,3})?")
_CLAUSE = re.compile(r"제(\d{1,2})항")
_BEFORE = 80  # characters before an article in which its law's name is looked for
_WORD = r"[0-9A-Za-z가-힣·ㆍ]+"
_NAME = re.compile(
    rf"({_WORD}(?:[ \t]{{1,2}}{_WORD})*)[ \t]*[「」｢｣『』《》〈〉'\"’”`\[\](（§]*[ \t]*$"
)
_BEHIND = re.compile(
    rf"[ \t]*(?:제\s?\d{{1,4}}\s?[항호목][ \t]*){{0,3}}[,(（「『《\[]?[ \t]*({_WORD}(?:[ \t]{{1,2}}{_WORD}){{0,11}})"
)
_LAWFUL = re.compile(r"(?:법|법률|령|규칙|규정|조례|준칙|약관|헌법|규약|지침|고시)$")
_NUMBERED = re.compile(r"[ \t]*(?:제\s?)?\d")
_PARTICLE = re.compile(r"(?:상|의|에서|에|중)$")
_JOINING = frozenset(
    [
        *("및", "또는", "과", "와", "이나", "나", "내지", "부터", "각", "본", "단서", "본문"),
        *("전단", "후단", "같은", "동", "위", "이", "그", "법", "법률", "동법"),
        *(
            "그럼",
            "그러면",
            "그렇다면",
            "그런데",
            "근데",
            "그리고",
            "또",
            "또한",
            "혹시",
            "다음",
            "다른",
        ),
    ]
)
_SAME_LAW = re.compile(r"(?:^|\s)(?:같은|동|위|그)\s?법률?$")
_BRANCH = re.compile(r"의\s?(\d{1,3})(?![\d가-힣])")
_GOES_ON = re.compile(r"(?![의은는이을를와과에](?:\s|$|제?\d))[가-힣A-Za-z0-9%]")


@dataclass(frozen=True, slots=True)
class Reference:
    """Characters ``[start, end)`` of a text that name a record.

    ``keys``: what the record may be kept under; the first that is kept at all is meant.
    ``named``: whether a law's name stands with the article. ``clause``: the 항, 0 for none.
    """

    start: int
    end: int
    kind: Literal["case", "article"]
    keys: tuple[str, ...]
    named: bool = True
    clause: int = 0


def references_of(
    text: str, *, names: Mapping[str, str] | None = None, laws: Sequence[str] = ()
) -> tuple[Reference, ...]:
    """Return the references in the first 4,000 characters of ``text``, in order, at most 16.

    ``names`` maps squeezed short names of laws to full ones, ``law_names()`` by default. Offsets
    are into ``folded(text)``. ``민법 제130조, 제133조`` names two articles of one law. An article
    with which no law is named is one of ``laws``, squeezed names in the order they are tried; ""
    among them says that it may be of none.
    """
    if not has_hangul(text):
        return ()
    known = law_names() if names is None else names
    reader = _Reader(folded(text)[:MAX_CHARS], known, earlier=tuple(laws))
    return tuple(reader.read())[:MAX_REFERENCES]


def case_key(year: str, mark: str, number: str) -> str:
    """Return the key of a case; a year of two digits (until 1999) counts as the whole year."""
    if len(year) == 2:
        year = ("19" if int(year) >= 48 else "20") + year
    return f"ref{year}{mark}{int(number)}"


def article_key(law: str, article: str) -> str:
    """Return the key of ``article`` (``제750조``) of the law with squeezed name ``law``."""
    return f"ref{law}{article}"


class _Reader:
    """One text being read: where the last reference ended, and the law it spoke of."""

    def __init__(self, text: str, names: Mapping[str, str], *, earlier: tuple[str, ...]) -> None:
        self._text = text
        self._names = names
        self._earlier = earlier
        self._known = frozenset(names) | frozenset(names.values())
        self._floor = 0
        self._laws: tuple[str, ...] = ()

    def read(self) -> list[Reference]:
        found: list[Reference] = []
        for term in find_terms(self._text):
            word = term.keywords[0] if len(term.keywords) == 1 else ""
            if case := _CASE.fullmatch(word):
                found.extend(self._cases(term, case))
            elif _ARTICLE.fullmatch(word):
                found.append(self._article(term, word))
            elif clause := _CLAUSE.fullmatch(word):
                self._clause(term, int(clause[1]), found)
            elif word.isdecimal() and (law := self._law_at(term)):
                found.append(self._numbered(term, law, word))
        for case in _SPACED.finditer(self._text):
            if any(one.start < case.end() and case.start() < one.end for one in found):
                continue
            found.append(Reference(case.start(), case.end(), "case", (case_key(*case.groups()),)))
        return sorted(found, key=lambda one: one.start)

    def _cases(self, term: Term, case: re.Match[str]) -> Iterator[Reference]:
        """Yield the case and those that share its year and mark: ``2024스866, 867, 868``."""
        yield Reference(term.start, term.end, "case", (case_key(case[1], case[2], case[3]),))
        end = term.end
        while more := _MORE.match(self._text, end):
            key = case_key(case[1], case[2], more[1])
            yield Reference(more.start(1), more.end(1), "case", (key,))
            end = more.end()
        self._floor = end

    def _article(self, term: Term, word: str) -> Reference:
        start, laws = self._before(term.start)
        self._floor = term.end
        if laws is not None:
            self._laws = laws
        elif not self._laws:
            self._laws = self._behind(term.end)
        meant = self._laws or self._earlier or ("",)
        keys = tuple(article_key(law, word) for law in meant)
        if "" in meant:
            return Reference(term.start, term.end, "article", keys, named=False)
        return Reference(start, term.end, "article", keys)

    def _behind(self, position: int) -> tuple[str, ...]:
        """Return the law named after an article that nothing is named before: ``제750조 민법``."""
        match = _BEHIND.match(self._text, position)
        if match is None:
            return ()
        found: list[str] = []
        for word in re.finditer(r"\S+", match[1]):
            end = match.start(1) + word.end()
            name = _PARTICLE.sub("", squeezed(self._text[match.start(1) : end]))
            if name in _JOINING:
                break
            # A law that a number follows is the law of the next article.
            lawful = name in self._known or _LAWFUL.search(name)
            if lawful and not _NUMBERED.match(self._text, end):
                found += [name, self._names.get(name, name)]
        return tuple(dict.fromkeys(reversed(found)))

    def _clause(self, term: Term, clause: int, found: list[Reference]) -> None:
        """Take ``제1항`` right behind an article to that article."""
        last = found[-1] if found else None
        joined = last is not None and not self._text[last.end : term.start].strip()
        if last is not None and joined and last.kind == "article":
            found[-1] = replace(last, end=term.end, clause=clause)
        self._floor = term.end

    def _numbered(self, term: Term, law: tuple[int, str], word: str) -> Reference:
        """``민750``: a known law's name right before a bare number."""
        start, name = law
        self._laws = tuple(dict.fromkeys((self._names.get(name, name), name)))
        branch = _BRANCH.match(self._text, term.end)
        self._floor = branch.end() if branch else term.end
        article = f"제{word}조" + (f"의{branch[1]}" if branch else "")
        keys = tuple(article_key(law, article) for law in self._laws)
        return Reference(start, self._floor, "article", keys)

    def _law_at(self, term: Term) -> tuple[int, str] | None:
        """Return where a known law's name begins that ends at a bare article number, and it."""
        if len(self._text[term.start : term.end]) > 4 or self._text[term.start] == "0":
            return None
        if _GOES_ON.match(self._text, term.end):
            return None
        match = _NAME.search(self._text[max(self._floor, term.start - _BEFORE) : term.start])
        if match is None:
            return None
        blank = self._text[term.start - 1].isspace()
        for start, name in _suffixes(match[1]):
            if name in self._known and not (blank and len(name) == 1):
                offset = max(self._floor, term.start - _BEFORE)
                return offset + match.start(1) + start, name
        return None

    def _before(self, position: int) -> tuple[int, tuple[str, ...] | None]:
        """Return where what may be a law's name begins, and its readings, longest first.

        ``None``: no name stands there, the law spoken of last is meant.
        """
        offset = max(self._floor, position - _BEFORE)
        match = _NAME.search(self._text[offset:position])
        if match is None or _SAME_LAW.search(match[1]):
            return position, None
        if all(word in _JOINING for word in match[1].split()):
            return position, None
        found: dict[str, None] = {}
        start = position
        for at, name in _suffixes(match[1]):
            for form in (name, _PARTICLE.sub("", name)):
                if form:
                    found |= dict.fromkeys((self._names.get(form, form), form))
                if form in self._known:
                    start = min(start, offset + match.start(1) + at)
        return start, tuple(found)


def _suffixes(words: str) -> Iterator[tuple[int, str]]:
    """Yield start and squeezed form of every run of whole words up to the end, longest first."""
    for match in re.finditer(r"\S+", words):
        if name := squeezed(words[match.start() :]):
            yield match.start(), name


_LAW_ENDING = re.compile(r"법률|법|령|규칙|규정|조례|준칙|약관|규약|지침|고시")
_RUN = re.compile(r"[0-9A-Za-z가-힣·ㆍ]+(?:[ \t]+[0-9A-Za-z가-힣·ㆍ]+)*")
_SPOKEN_WORD = re.compile(r"\S+")
_KEY = re.compile(r"ref(.+?)제\d{1,5}조(?:의\d{1,3})?")
_WORDS = 8  # that the name of a law may have
Named = tuple[int, bool, tuple[str, ...]]
"""Where a name ends, whether it surely is a law's, and its readings."""

_NO_NAMES = frozenset(("법", "법률", "법령", "규칙", "규정", "조례", "약관", "지침", "고시"))


def laws_spoken_of(
    query: str, before: str, *, names: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the squeezed names of the law an article in ``query`` is of, in the order to try them.

    That is the law ``query`` names apart from its articles, else the one spoken of last in
    ``before``. A name that ends as laws do but is not known may be none (방법): then the one before
    it is tried too, and where there is none, no law ("") at last. Empty where nothing is named.
    ``names`` are those of ``references_of``.
    """
    known = law_names() if names is None else names
    own = sorted(_alone(folded(query), known), key=_end)
    earlier = sorted([*_with_articles(before, known), *_alone(folded(before), known)], key=_end)
    laws: list[str] = []
    for _, sure, readings in [*reversed(own), *reversed(earlier)]:
        laws += readings
        if sure:
            break
    else:
        laws += [""] if laws else []
    return tuple(dict.fromkeys(laws))


def _end(found: Named) -> int:
    return found[0]


def _with_articles(text: str, known: Mapping[str, str]) -> Iterator[Named]:
    """Yield end, ``True`` and readings of the law of every article that is named with one."""
    for reference in references_of(text, names=known):
        if reference.kind == "article" and reference.named:
            keys = [_KEY.fullmatch(key) for key in reference.keys]
            yield reference.end, True, tuple(key[1] for key in keys if key is not None)


def _alone(text: str, known: Mapping[str, str]) -> Iterator[Named]:
    """Yield end, whether it is a known law, and readings of what ends like a law's name."""
    full = frozenset(known.values())
    for run in _RUN.finditer(text):
        starts = [word.start() for word in _SPOKEN_WORD.finditer(text, run.start(), run.end())]
        for ending in _LAW_ENDING.finditer(text, run.start(), run.end()):
            end = ending.end()
            if not noun_may_end(text, end):
                continue
            begun = [start for start in starts if start < end][-_WORDS:]
            readings = [squeezed(text[start:end]) for start in begun]
            sure = [known.get(one, one) for one in readings if one in known or one in full]
            if sure:
                yield end, True, tuple(sure[:1])
            else:
                yield end, False, tuple(one for one in readings if one not in _NO_NAMES)

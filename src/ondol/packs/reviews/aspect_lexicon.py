"""Which aspects a review speaks of and how, by words that a pack lists: clause by clause.

A review is cut where it turns ("맛있는데 늦어요" says two things), each clause is looked through for the
words of every aspect and for words that praise or blame, a negation turning them round. What no word
decides is left to whoever asks. Pure; built once from a table of the pack.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TURNS = re.compile(
    r"[.!?~…\n;]+|,\s|(?<=[가-힣])(?:지만|는데도?|은데도?|인데도?|데요|으나|고요|구요|네요|어요|아요|습니다|해요|에요|예요|고)(?=[\s,.!?~ㅋㅎㅠ]|$)"
    r"|\s(?:but|however|although|though|yet|except|while|whereas)\s",
    re.IGNORECASE,
)
_NEGATED_KO = re.compile(
    r"^[가-힣]{0,3}(?:지\s?(?:는|도|가)?\s?(?:않|못|안)|진\s?(?:않|못)|질\s?않)"
)
_NEGATED_BEFORE_KO = re.compile(r"(?:^|\s)(?:안|못|별로|덜)\s?$")
_NEGATED_BEFORE_EN = re.compile(
    r"(?:\b(?:not|no|never|hardly|nothing|nor|isn'?t|wasn'?t|aren'?t|don'?t|didn'?t|doesn'?t|can'?t|couldn'?t|won'?t)\b(?:\s\w+){0,2})\s$",
    re.I,
)
_REACH = 24
_MOST_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class ReviewClause:
    """A piece of a text, the aspects it names, and its polarity by words: +1, -1, or 0 for unknown."""

    text: str
    aspects: tuple[str, ...]
    polarity: int


@dataclass(frozen=True, slots=True)
class Aspect:
    """One aspect: its key, its title per language, its words as one pattern."""

    key: str
    title: Mapping[str, str]
    words: re.Pattern[str]


class AspectLexicon:
    """The aspects and the words of praise and blame of one table (``[aspects.taste]``, ``[praise]``…)."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.aspects = tuple(
            Aspect(
                key=key,
                title={lang: str(row["title"][lang]) for lang in row["title"]},
                words=_pattern(row),
            )
            for key, row in table["aspects"].items()
        )
        self._praise = _pattern(table["praise"])
        self._blame = _pattern(table["blame"])

    def title(self, key: str, language: str) -> str:
        """Return the title of an aspect in ``language``, its key where it has none."""
        for aspect in self.aspects:
            if aspect.key == key:
                return aspect.title.get(language, key)
        return key

    def clauses(self, text: str) -> Iterator[ReviewClause]:
        """Yield the clauses of ``text`` that hold anything; a clause without an aspect has none.

        A clause that only judges ("별로예요") speaks of what the clause before it named.
        """
        last: tuple[str, ...] = ()
        for piece in pieces(text):
            named = tuple(one.key for one in self.aspects if one.words.search(piece))
            polarity = self.polarity(piece)
            if named or not polarity:
                last = named
                yield ReviewClause(piece, named, polarity)
            else:
                yield ReviewClause(piece, last, polarity)

    def polarity(self, text: str) -> int:
        """Return +1 where ``text`` praises more than it blames, -1 for the other, 0 for neither."""
        folded = unicodedata.normalize("NFKC", text).lower()
        total = sum(_turned(folded, found) for found in self._praise.finditer(folded))
        total -= sum(_turned(folded, found) for found in self._blame.finditer(folded))
        return (total > 0) - (total < 0)


def pieces(text: str) -> list[str]:
    """Return the clauses of ``text``: where it ends a sentence or turns."""
    folded = unicodedata.normalize("NFKC", text[:_MOST_CHARS])
    found: list[str] = []
    start = 0
    for match in _TURNS.finditer(folded):
        found.append(folded[start : match.end()].strip())
        start = match.end()
    found.append(folded[start:].strip())
    return [piece for piece in found if any(char.isalnum() for char in piece)]


def lexicon_faults(table: Any, languages: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is wrong with a table as (key, rule)."""
    if not isinstance(table, Mapping) or not isinstance(table.get("aspects"), Mapping):
        return [("aspects", "a lexicon has tables [aspects.NAME]")]
    faults: list[tuple[str, str]] = []
    rows = {f"aspects.{key}": row for key, row in table["aspects"].items()}
    rows |= {name: table.get(name) for name in ("praise", "blame")}
    for name, row in rows.items():
        if not isinstance(row, Mapping):
            faults.append((name, "the table is missing"))
            continue
        for language in languages:
            words = row.get(language)
            if not isinstance(words, list) or not all(isinstance(w, str) and w for w in words):
                faults.append((f"{name}.{language}", "a list of words is missing"))
        if name.startswith("aspects.") and not isinstance(row.get("title"), Mapping):
            faults.append((f"{name}.title", "a title per language is missing"))
    return faults


def _turned(text: str, found: re.Match[str]) -> int:
    """Return -1 where a negation turns the word found, else 1."""
    before = text[max(0, found.start() - _REACH) : found.start()]
    if _NEGATED_BEFORE_KO.search(before) or _NEGATED_BEFORE_EN.search(before):
        return -1
    return -1 if _NEGATED_KO.match(text[found.end() : found.end() + _REACH]) else 1


def _pattern(row: Mapping[str, Any]) -> re.Pattern[str]:
    """Return one pattern for all languages: Latin words whole with endings, Hangul stems anywhere.

    A Hangul word may begin with ``^`` (only at the beginning of a word).
    """
    parts: list[str] = []
    for key, words in row.items():
        if key == "title":
            continue
        for word in words:
            start = word.startswith("^")
            plain = re.escape(unicodedata.normalize("NFKC", word.lstrip("^")).lower())
            if plain[:1].isascii():
                parts.append(rf"\b{plain}(?:s|es|ed|ly|y)?\b")
            else:
                parts.append(rf"(?<![가-힣]){plain}" if start else plain)
    parts.sort(key=len, reverse=True)
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)

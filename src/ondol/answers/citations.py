"""Ties each statement of an answer to the sentence it rests on, while the answer streams.

A citation is a whole source sentence, taken from the stored text by offsets, so it stands there
verbatim by construction; it is kept only when it supports the statement: every number of the
statement occurs in it, and it covers enough of the words. Markers the model wrote itself are
removed; markers that survive are ours. Knows no model and no store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ondol.answers.features import Features, coverage, features, numbers, union
from ondol.answers.selection import Excerpt
from ondol.core.types import Citation

_BRACKETED = re.compile(
    r"\s*[\[【](?:문서|출처|doc(?:ument)?|source)?\s*((?:\d{1,2}\s*,?\s*)+)[\]】]", re.I
)
_OPEN = re.compile(r"\s*[\[【][^\]】]{0,14}$|\s+$")
_TERMINATORS = ".!?。"
_QUOTED = re.compile(r"[\"“‘'「『]([^\"”’'」』]{4,})[\"”’'」』]")


@dataclass(frozen=True, slots=True)
class _Candidate:
    excerpt: int
    start: int
    end: int
    features: Features
    numbers: frozenset[str]


@dataclass(slots=True)
class Verification:
    """What came of an answer: its citations and how much was dropped."""

    citations: list[Citation] = field(default_factory=list)
    statements: int = 0
    unsupported: int = 0
    dropped: int = 0


class AnswerVerifier:
    """Feeds on pieces of an answer, returns what may be shown.

    ``excerpts`` are the passages the generator saw, in the order of their numbers.
    """

    def __init__(self, question: str, excerpts: Sequence[Excerpt], *, min_support: float) -> None:
        self._excerpts = excerpts
        self._min_support = min_support
        self._question_numbers = numbers(question)
        self._question = features(question)
        self._candidates = [c for n, e in enumerate(excerpts) for c in _candidates(n, e)]
        self._held = ""
        self._statement = ""
        self._hints: set[int] = set()
        self.result = Verification()

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text to show now, markers of ours included."""
        self._held += piece
        ready, self._held = _split_open(self._held)
        return self._show(ready)

    def finish(self) -> str:
        """Verify what is left; return the rest of the text to show."""
        rest = self._show(self._held)
        self._held = ""
        return rest + self._conclude()

    def _show(self, text: str) -> str:
        for match in _BRACKETED.finditer(text):
            self._hints.update(int(n) for n in re.findall(r"\d+", match.group(1)))
        text = _BRACKETED.sub("", text)
        shown: list[str] = []
        for char in text:
            ended = char == "\n" or (char.isspace() and self._statement[-1:] in _TERMINATORS)
            if ended and self._statement.strip() and not _is_list_number(self._statement):
                shown.append(self._conclude())
            self._statement += char
            shown.append(char)
        return "".join(shown)

    def _conclude(self) -> str:
        statement, self._statement = self._statement.strip(), ""
        hints, self._hints = self._hints, set()
        if not features(statement):
            return ""
        self.result.statements += 1
        self.result.dropped += sum(1 for h in hints if not 1 <= h <= len(self._excerpts))
        self.result.dropped += self._false_quotes(statement)
        best = self._support(statement, hints)
        if not best:
            self.result.unsupported += 1
            self.result.dropped += sum(1 for h in hints if 1 <= h <= len(self._excerpts))
            return ""
        markers = dict.fromkeys(self._cite(candidate) for candidate in best)
        return "".join(f" [{marker}]" for marker in markers)

    def _false_quotes(self, statement: str) -> int:
        sources = ["".join(e.hit.text.split()) for e in self._excerpts]
        quotes = ["".join(q.split()) for q in _QUOTED.findall(statement)]
        return sum(1 for quote in quotes if not any(quote in source for source in sources))

    def _support(self, statement: str, hints: set[int]) -> list[_Candidate]:
        wanted = features(statement)
        needed = numbers(statement) - self._question_numbers
        ranked = sorted(self._candidates, key=lambda c: -self._score(c, wanted, needed, hints))[:8]
        if not ranked:
            return []
        first = ranked[0]
        if needed <= first.numbers and coverage(wanted, first.features) >= self._min_support:
            return [first]
        for second in ranked[1:]:
            pair = union((first.features, second.features))
            if (
                needed <= first.numbers | second.numbers
                and coverage(wanted, pair) >= self._min_support
            ):
                return [first, second]
        return []

    def _score(
        self, candidate: _Candidate, wanted: Features, needed: frozenset[str], hints: set[int]
    ) -> float:
        missing = len(needed - candidate.numbers) / len(needed) if needed else 0.0
        return (
            coverage(wanted, candidate.features)
            + 0.3 * coverage(self._question, candidate.features)
            + (0.05 if candidate.excerpt + 1 in hints else 0.0)
            - 0.5 * missing
            - 0.01 * candidate.excerpt
        )

    def _cite(self, candidate: _Candidate) -> int:
        hit = self._excerpts[candidate.excerpt].hit
        start, end = hit.start + candidate.start, hit.start + candidate.end
        for citation in self.result.citations:
            if (citation.document, citation.start, citation.end) == (hit.document, start, end):
                return citation.marker
        marker = len(self.result.citations) + 1
        self.result.citations.append(
            Citation(
                document=hit.document,
                page=hit.page_at(start),
                start=start,
                end=end,
                quote=hit.text[candidate.start : candidate.end],
                verified=True,
                marker=marker,
                title=hit.title,
            )
        )
        return marker


def _candidates(number: int, excerpt: Excerpt) -> list[_Candidate]:
    context = features(f"{excerpt.hit.title} {excerpt.hit.heading}")
    found = []
    for start, end in excerpt.spans:
        text = excerpt.hit.text[start:end]
        found.append(
            _Candidate(number, start, end, union((features(text), context)), numbers(text))
        )
    return found


def _split_open(text: str) -> tuple[str, str]:
    """Hold back a bracket that may become a marker, and white space at the end."""
    match = _OPEN.search(text)
    return (text[: match.start()], text[match.start() :]) if match else (text, "")


def _is_list_number(statement: str) -> bool:
    return bool(re.fullmatch(r"\s*(?:\d{1,2}|[A-Za-z가-힣])\.", statement))

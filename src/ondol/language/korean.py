"""Keywords of Korean and English text for BM25: terms kept whole, Korean cut into morphemes.

Kiwi (kiwipiepy) loads at the first text with Hangul, or ahead of it in a thread of its own, and
never for English: a text without Hangul waits for nothing. Documents and queries go through one
rule, so that equal words become equal keywords. Every keyword is letters and digits only.
Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ondol.core.machine import usable_cores
from ondol.core.process import trim
from ondol.language.dictionary import Dictionary
from ondol.language.language import has_hangul
from ondol.language.normalise import folded
from ondol.language.terms import Term, find_terms, plain

if TYPE_CHECKING:
    from kiwipiepy import Kiwi

RULE = "3"
"""Which rule makes keywords; a change of what comes out changes it (see ``services.keywords``)."""

# Measured with benchmarks/keywords.py; see ADR 0005 for what was tried and what it gave.
_KEPT = frozenset({"NNG", "NNP", "NNB", "NR", "XR", "SL", "SN", "SH", "VV", "VA", "MAG"})
_COMPOUND = frozenset({"NNG", "NNP", "XR", "XPN", "XSN"})
_QUESTION_WORDS = frozenset(
    [
        "무엇",
        "뭐",
        "어느",
        "어떻",
        "어떠",
        "누구",
        "언제",
        "어디",
        "왜",
        "몇",
        "얼마",
        "며칠",
        "경우",
        "여부",
        "알",
        "싶",
        "말하",
        "하",
        "되",
        "있",
        "없",
        "같",
        "보",
        "주",
        "것",
        "수",
        "등",
        "때",
        "위하",
        "대하",
        "따르",
        "의하",
        "관하",
    ]
)
_QUERY_CHARS = 4_000
_SHORT = 80
_REMEMBERED = 1_024
_BATCH = 256
_NO_WORDS = Dictionary()


class Morpheme(NamedTuple):
    """A morpheme: its form, Sejong part-of-speech tag without suffix, and ``[start, end)``."""

    form: str
    tag: str
    start: int
    end: int


class KeywordAnalyzer:
    """Turns text into keywords. ``threads`` (all usable cores by default) share ``tokens_many``."""

    def __init__(self, *, threads: int | None = None) -> None:
        self._threads = threads or usable_cores()
        self._lock = threading.Lock()
        self._kiwi: Kiwi | None = None
        # Names that are synonyms of what a query holds come again and again.
        self._short_query = lru_cache(maxsize=_REMEMBERED)(self._query_tokens)

    @property
    def loaded(self) -> bool:
        """Whether the Korean model is in memory."""
        return self._kiwi is not None

    def warm_up(self) -> None:
        """Load the Korean model now instead of at the first Korean text."""
        self._loaded()

    def tokens(self, text: str, *, dictionary: Dictionary = _NO_WORDS) -> list[str]:
        """Return the keywords of a document's text in reading order, repeats kept."""
        return self.tokens_many([text], dictionary=dictionary)[0]

    def tokens_many(
        self, texts: Sequence[str], *, dictionary: Dictionary = _NO_WORDS
    ) -> list[list[str]]:
        """Return the keywords of each text; quicker than one call per text when there are many."""
        found: list[list[str]] = []
        for at in range(0, len(texts), _BATCH):
            batch = [folded(text) for text in texts[at : at + _BATCH]]
            found.extend(self._batch(batch, dictionary))
        return found

    def query_tokens(self, text: str, *, dictionary: Dictionary = _NO_WORDS) -> list[str]:
        """Return the keywords of a query, each once, without the words every question has.

        A query of nothing but such words keeps them. Reads the first 4,000 characters.
        """
        if len(text) > _SHORT:
            return list(self._query_tokens(text[:_QUERY_CHARS], dictionary))
        return list(self._short_query(text, dictionary))

    def _query_tokens(self, text: str, dictionary: Dictionary) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(self.tokens(text, dictionary=dictionary)))
        return tuple(word for word in words if word not in _QUESTION_WORDS) or words

    def _batch(self, texts: Sequence[str], dictionary: Dictionary) -> Iterator[list[str]]:
        korean = [text for text in texts if has_hangul(text)]
        analysed = iter(self._analyse(korean) if korean else ())
        for text in texts:
            morphemes = next(analysed) if has_hangul(text) else []
            terms = list(find_terms(text))
            if dictionary:
                borders = {at for m in morphemes for at in (m.start, m.end)}
                terms = _before(list(dictionary.find(text, borders)), terms)
            yield keywords(terms, morphemes)

    def _analyse(self, texts: Sequence[str]) -> list[list[Morpheme]]:
        kiwi = self._loaded()
        return [
            [Morpheme(t.form, t.tag.partition("-")[0], t.start, t.start + t.len) for t in tokens]
            for tokens in kiwi.tokenize(list(texts))
        ]

    def _loaded(self) -> Kiwi:
        with self._lock:
            if self._kiwi is None:
                from kiwipiepy import Kiwi

                self._kiwi = Kiwi(
                    num_workers=self._threads,
                    load_default_dict=False,  # 70 MB and 0.4 s for no measured gain
                    load_typo_dict=False,
                    load_multi_dict=False,  # 190 MB and 1 s for no measured gain
                )
                self._kiwi.tokenize("온돌")  # it builds itself at the first text
                trim()  # what building took and does not need any more
            return self._kiwi


def keywords(terms: Sequence[Term], morphemes: Iterable[Morpheme]) -> list[str]:
    """Return keywords of one text: terms first where the two overlap, then kept morphemes.

    A run of nouns without a space adds itself as one compound keyword.
    """
    placed: list[tuple[int, str]] = [(t.start, word) for t in terms for word in t.keywords]
    run: list[Morpheme] = []
    for morpheme in _outside(terms, morphemes):
        if run and (morpheme.tag not in _COMPOUND or morpheme.start != run[-1].end):
            placed.extend(_compound(run))
            run = []
        if morpheme.tag in _COMPOUND:
            run.append(morpheme)
        if morpheme.tag in _KEPT and (word := plain(morpheme.form)):
            placed.append((morpheme.start, word))
    placed.extend(_compound(run))
    placed.sort(key=lambda item: item[0])
    return [word for _, word in placed]


def _before(words: Sequence[Term], terms: Sequence[Term]) -> list[Term]:
    """Return both in order, without the terms that overlap one of ``words``."""
    left = [t for t in terms if not any(w.start < t.end and t.start < w.end for w in words)]
    return sorted([*words, *left], key=lambda term: term.start) if words else list(terms)


def _outside(terms: Sequence[Term], morphemes: Iterable[Morpheme]) -> Iterator[Morpheme]:
    at = 0
    for morpheme in morphemes:
        while at < len(terms) and terms[at].end <= morpheme.start:
            at += 1
        if at == len(terms) or morpheme.end <= terms[at].start:
            yield morpheme


def _compound(run: Sequence[Morpheme]) -> Iterator[tuple[int, str]]:
    if len(run) > 1:
        word = plain("".join(morpheme.form for morpheme in run))
        if word:
            yield run[0].start, word

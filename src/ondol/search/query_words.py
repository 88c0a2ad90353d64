"""What a query asks keyword search for: its own tokens, and what its collection calls the same.

A collection's words (dictionary, synonyms) lie in its record, so a change counts from the next
query on, in every process. Cheap to make; parsed words are kept by what they were parsed from.

What can be told about a query before its legs are fused, and a weight learned from it.

Pure. The features are of the query's wording and of how sure and how agreed its two legs are; each
costs a pass over a hundred scores at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from ondol.documents.keywords import words_of
from ondol.language.dictionary import Dictionary
from ondol.language.language import detect
from ondol.language.synonyms import Synonyms, law_groups
from ondol.language.terms import find_terms
from ondol.search.fusion import standard_deviation
from ondol.store.collection_words import KeywordStore
from ondol.store.documents import DocumentStore

MAX_EXPANSIONS = 32


class QueryAnalyzer(Protocol):
    """Turns a query into keyword tokens."""

    def query_tokens(self, text: str, *, dictionary: Dictionary = ...) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class QueryWords:
    """``tokens`` count in full, ``expansions`` half; no token is in both."""

    tokens: Sequence[str]
    expansions: Sequence[str] = ()


def query_words(
    store: DocumentStore, analyzer: QueryAnalyzer, collection: str, queries: Sequence[str]
) -> QueryWords:
    """Return the keywords of ``queries`` (wordings of one question) for a collection.

    Raises ``NotFound`` for an unknown collection.
    """
    words = words_of(KeywordStore(store.database).get(collection))
    tokens = dict.fromkeys(
        token
        for query in queries
        for token in analyzer.query_tokens(query, dictionary=words.dictionary)
    )
    others = dict.fromkeys(
        other
        for query in queries
        for known in (words.synonyms, _law_synonyms())
        for other in known.others(query)
    )
    more = dict.fromkeys(
        token
        for other in others
        for token in analyzer.query_tokens(other, dictionary=words.dictionary)
        if token not in tokens
    )
    return QueryWords(list(tokens), list(more)[:MAX_EXPANSIONS])


@lru_cache(maxsize=1)
def _law_synonyms() -> Synonyms:
    return Synonyms(law_groups(), to_first=True)


NAMES = (
    *("length", "terms", "korean", "dense_top", "dense_gap"),
    *("lexical_top", "lexical_gap", "agree"),
)
_AGREE = 10
_MOST = 2000  # characters of a query that are looked at
LEAST, GREATEST = 0.05, 0.95
"""Neither leg is ever left out on the word of a fit."""

Ranking = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class QueryWeight:
    """The vector leg's share as a logistic function of the features, each centred and scaled.

    ``weight = middle + swing × (2 p − 1)``, kept within 0.05…0.95, where ``p`` is the estimated chance
    that vectors do better than keywords.
    """

    middle: float
    swing: float
    bias: float
    coefficients: tuple[float, ...]
    centres: tuple[float, ...]
    scales: tuple[float, ...]

    def weight(self, features: Sequence[float]) -> float:
        """Return the weight for ``features``; the middle where their number is another."""
        if not len(features) == len(self.coefficients) == len(self.centres) == len(self.scales):
            return self.middle
        rows = zip(features, self.centres, self.scales, self.coefficients, strict=True)
        z = self.bias + sum(b * (x - c) / (s or 1.0) for x, c, s, b in rows)
        chance = 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, z))))
        return max(LEAST, min(GREATEST, self.middle + self.swing * (2 * chance - 1)))


def features_of(query: str, legs: Mapping[str, Ranking]) -> tuple[float, ...]:
    """Return the features in the order of ``NAMES``, all finite."""
    asked = query[:_MOST]
    words = len(asked.split())
    terms = sum(1 for _ in find_terms(asked))
    dense, lexical = legs.get("dense", ()), legs.get("lexical", ())
    first = {chunk for chunk, _ in dense[:_AGREE]}
    return (
        math.log1p(words),
        terms / max(words, 1),
        float(detect(asked) == "ko"),
        *_shape(dense),
        *_shape(lexical),
        len(first & {chunk for chunk, _ in lexical[:_AGREE]}) / _AGREE,
    )


def _shape(ranking: Ranking) -> tuple[float, float]:
    """Return how far the first stands above the mean and above the tenth, in standard deviations."""
    scores = [score for _, score in ranking]
    spread = standard_deviation(scores)
    if not spread > 0:
        return 0.0, 0.0
    tenth = scores[min(len(scores), _AGREE) - 1]
    return (scores[0] - math.fsum(scores) / len(scores)) / spread, (scores[0] - tenth) / spread

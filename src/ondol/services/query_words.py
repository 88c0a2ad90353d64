"""What a query asks keyword search for: its own tokens, and what its collection calls the same.

A collection's words (dictionary, synonyms) lie in its record, so a change counts from the next
query on, in every process. Cheap to make; parsed words are kept by what they were parsed from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from ondol.store.documents import DocumentStore
from ondol.store.keyword_rows import KeywordStore
from ondol.text.dictionary import Dictionary
from ondol.text.law_names import squeezed
from ondol.text.synonyms import Group, Synonyms, law_groups

MAX_EXPANSIONS = 32


class Analyzer(Protocol):
    """Turns a query into keyword tokens."""

    def query_tokens(self, text: str, *, dictionary: Dictionary = ...) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class QueryWords:
    """``tokens`` count in full, ``expansions`` half; no token is in both."""

    tokens: Sequence[str]
    expansions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CollectionWords:
    """What a collection knows of words, from its record."""

    dictionary: Dictionary
    synonyms: Synonyms

    def law_names(self) -> dict[str, str]:
        """Return every other member of a group with its first, which records are titled by."""
        return {
            squeezed(other): squeezed(group[0])
            for group in self.synonyms.groups
            for other in group[1:]
        }


def words_of(keywords: Mapping[str, Any]) -> CollectionWords:
    """Return the words in a collection's ``keywords``; what is not there is empty."""
    groups = tuple(tuple(group) for group in keywords.get("synonyms", ()))
    return _words(groups, tuple(keywords.get("dictionary", ())))


def query_words(
    store: DocumentStore, analyzer: Analyzer, collection: str, queries: Sequence[str]
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


@lru_cache(maxsize=16)
def _words(groups: tuple[Group, ...], dictionary: tuple[str, ...]) -> CollectionWords:
    return CollectionWords(Dictionary(dictionary), Synonyms(groups))


@lru_cache(maxsize=1)
def _law_synonyms() -> Synonyms:
    return Synonyms(law_groups(), to_first=True)

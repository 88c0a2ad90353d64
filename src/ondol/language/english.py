"""English words as keywords: what to skip, and one stem for a word's inflected forms.

A small suffix stripper in the spirit of Porter's step 1 (plurals, -ed, -ing, -ly), not a lemmatiser:
it must only map the forms of one word to one string, alike in documents and queries.
"""

from __future__ import annotations

import re

STOP_WORDS = frozenset(
    """
    a about after all also an and any are as at be because been before being between both but by
    can could did do does doing during each either else few for from further had has have having
    he her here hers him his how i if in into is it its itself just me more most my no nor not of
    off on once only or other our ours out over own same she should so some such than that the
    their theirs them then there these they this those through to too under until up upon us very
    was we were what when where whether which while who whom whose why will with within without
    would you your yours
    """.split()  # noqa: SIM905 (a word list reads better than a column of quotes)
)

_VOWEL = re.compile("[aeiouy]")
_DOUBLED = re.compile(r"([bdfgmnprt])\1$")
_SHORT = re.compile(r"^[^aeiou]*[aeiouy][^aeiouwxy]$")


def stem(word: str) -> str:
    """Return the stem of a lower-case word; words with digits or under four letters stay whole."""
    if len(word) < 4 or not word.isalpha() or not word.isascii():
        return word
    word = _singular(word)
    for suffix in ("ingly", "edly", "ing", "ed"):
        base = word.removesuffix(suffix)
        if base != word and len(base) > 2 and _VOWEL.search(base):
            word = _restored(base)
            break
    if word.endswith("ly") and len(word) > 5:
        word = word[:-2]
    if word.endswith("y") and len(word) > 3 and word[-2] not in "aeiou":
        word = word[:-1] + "i"
    return word.removesuffix("e") if len(word) > 4 else word


def _singular(word: str) -> str:
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    if word.endswith("ies"):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    return word[:-1]


def _restored(base: str) -> str:
    """Undo what -ed and -ing did to a stem: ``stopp`` → ``stop``, ``hop`` → ``hope``."""
    if _DOUBLED.search(base):
        return base[:-1]
    if base.endswith(("at", "bl", "iz")) or (len(base) < 5 and _SHORT.match(base)):
        return base + "e"
    return base

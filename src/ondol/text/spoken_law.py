"""The law a conversation speaks of, for an article that is named without one.

After ``민법 제750조`` or ``민법에서는``, ``제751조`` is one of 민법. A law counts only where its name stands
in the text: with an article, or alone as a noun. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ondol.text.law_names import law_names, squeezed
from ondol.text.particles import noun_may_end
from ondol.text.references import references_of
from ondol.text.widths import folded

_LAWFUL = re.compile(r"법률|법|령|규칙|규정|조례|준칙|약관|규약|지침|고시")
_RUN = re.compile(r"[0-9A-Za-z가-힣·ㆍ]+(?:[ \t]+[0-9A-Za-z가-힣·ㆍ]+)*")
_WORD = re.compile(r"\S+")
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
        starts = [word.start() for word in _WORD.finditer(text, run.start(), run.end())]
        for ending in _LAWFUL.finditer(text, run.start(), run.end()):
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

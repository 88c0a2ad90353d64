"""Which provisions an answer cites, and whether they are among those that answer the question.

A provision is an article of a named law. An answer cites those its text names and those that its
cited documents are. Pure; spelling does not matter, see ``text.references``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ondol.text.own_names import document_keys
from ondol.text.references import references_of


@dataclass(frozen=True, slots=True)
class Provisions:
    """The provisions an answer cites, one key each, and how many of them are right."""

    cited: tuple[str, ...] = ()
    right: int = 0


def judge(
    answer: str,
    *,
    cited: Mapping[str, str],
    gold: Mapping[str, str],
    gold_texts: Iterable[str] = (),
) -> Provisions:
    """Return the provisions of ``answer`` and of its ``cited`` documents (name → title).

    Right are those that a ``gold`` document (name → title) is, or that ``gold_texts`` name.
    """
    wanted = {key for name, title in gold.items() for key in document_keys(name, title)}
    wanted |= {key for text in gold_texts for keys in _named(text) for key in keys}
    readings = [*_named(answer), *(document_keys(*one) for one in cited.items())]
    found: dict[str, bool] = {}
    for keys in readings:
        # Without its law an article says nothing; a reading of many words is one of several.
        spoken = [key for key in keys if not key.startswith("ref제") and "조" in key]
        right = [key for key in spoken if key in wanted]
        if spoken and not any(key in found for key in spoken):
            found[right[0] if right else spoken[-1]] = bool(right)
    return Provisions(tuple(found), sum(found.values()))


def _named(text: str) -> list[tuple[str, ...]]:
    found = references_of(text)
    return [one.keys for one in found if one.kind == "article" and one.named]

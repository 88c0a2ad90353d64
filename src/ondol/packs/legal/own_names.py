"""The references under which a passage is itself known: its case numbers, its article.

Read from the title, the source's last part, the headings and the heads of articles inside the
passage; what a passage merely cites does not count. They are kept among its keywords, so that a
query that names it finds it exactly; see ``text.references`` for the keys. A change here must
change ``indexing.RECIPE`` as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ondol.core.types import Passage, ReadDocument
from ondol.language.language import has_hangul
from ondol.language.structure import ARTICLE_LEVEL, lines
from ondol.packs.legal.law_names import law_names, squeezed
from ondol.packs.legal.references import article_key, references_of

_ARTICLE = re.compile(r"제\s?(\d{1,5})\s?조(?:\s?의\s?(\d{1,3}))?")
_TITLE = re.compile(
    r"(?P<law>[^()\[\]<>（]*?)[\s「」『』]*(?P<article>제\s?\d{1,5}\s?조(?:\s?의\s?\d{1,3})?)"
    r"(?=$|[\s(（\[<])\s*(?:제\s?\d{1,2}\s?항)?\s*(?:[(（\[<].*)?"
)
_ID = re.compile(r"(\D*(?:법|법률|령|규칙|규정|조례))[_ ](\d{1,5})(?:[_ ]|의)?(\d{1,3})?")
_ORDINAL = re.compile(r"제\s?\d{1,4}\s?[편장절관조]|부\s{0,3}칙")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$")
_LONGEST_NAME = 60


def own_keys(document: ReadDocument, passages: Sequence[Passage]) -> list[tuple[str, ...]]:
    """Return, for each passage of ``document``, the keys of the records that it is (part of)."""
    known = _Document(document)
    return [known.keys(passage) for passage in passages]


def document_keys(source: str, title: str) -> tuple[str, ...]:
    """Return the keys that a document's title and the last part of its source give it."""
    known = _Document(ReadDocument(source=source, title=title, text=""))
    return tuple(dict.fromkeys([*known.cases, *known.articles]))


class _Document:
    """What the title and the source of a document say of all its passages."""

    def __init__(self, document: ReadDocument) -> None:
        name = _EXTENSION.sub("", re.split(r"[/#\\]", document.source)[-1])
        self.cases = list(dict.fromkeys([*_cases(document.title), *_cases(name)]))
        self.articles = [*_titled(document.title), *_identified(name)]
        self._law = _law(document.title)

    def keys(self, passage: Passage) -> tuple[str, ...]:
        path = [part for part in passage.heading.split(" > ") if part]
        found = [*self.cases, *(key for part in path for key in _cases(part))]
        if self.articles:
            found += self.articles
        else:
            found += self._articles_of(passage, path)
        return tuple(dict.fromkeys(found))

    def _articles_of(self, passage: Passage, path: Sequence[str]) -> Iterator[str]:
        """Yield the keys of the articles above the passage and of those that begin in it."""
        laws = [self._law, *(_law(part) for part in path if not _ORDINAL.match(part))]
        heads = [part for part in path if _ARTICLE.match(part)][-1:]
        if "조" in passage.text:
            heads += [
                line.heading.title
                for line in lines(passage.text)
                if line.heading is not None and line.heading.level == ARTICLE_LEVEL
            ]
        for head in heads:
            match = _ARTICLE.match(head)
            if match is not None:
                yield from _keys(laws, _spelled(match[1], match[2]))
        for part in path:
            yield from _titled(part)


def _cases(text: str) -> list[str]:
    found = references_of(text.replace("_", " ")) if has_hangul(text) else ()
    return [reference.keys[0] for reference in found if reference.kind == "case"]


def _titled(title: str) -> Iterator[str]:
    """Yield the keys of a title that is a law's name and an article: ``민법 제750조(…)``."""
    match = _TITLE.fullmatch(title.strip())
    if match is None or not squeezed(match["law"]):
        return
    article = _ARTICLE.fullmatch(match["article"])
    if article is not None:
        yield from _keys([_law(match["law"])], _spelled(article[1], article[2]))


def _identified(name: str) -> Iterator[str]:
    """Yield the keys of an id such as ``민법_750`` or ``상법_391의2``."""
    match = _ID.fullmatch(name.strip())
    if match is not None:
        yield from _keys([_law(match[1])], _spelled(match[2], match[3]))


def _keys(laws: Iterable[str], article: str) -> Iterator[str]:
    """Yield the article under each name of the law, and under none."""
    for law in dict.fromkeys(laws):
        if law:
            yield article_key(law_names().get(law, law), article)
            yield article_key(law, article)
    yield article_key("", article)


def _spelled(number: str, branch: str | None) -> str:
    return f"제{int(number)}조" + (f"의{int(branch)}" if branch else "")


def _law(title: str) -> str:
    """Return the squeezed name a title begins with, or nothing where it is none."""
    name = squeezed(_EXTENSION.sub("", re.split(r"[(（\[<{]", title.strip())[0]))
    return name if 2 <= len(name) <= _LONGEST_NAME else ""

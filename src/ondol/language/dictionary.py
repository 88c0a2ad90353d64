"""A collection's own words: each stays one keyword, whatever the morphological analysis makes of it.

A word counts where it begins and ends as a word does: at a blank, before a particle, or where two
morphemes meet. A blank inside a word may be missing in the text. The words are matched beside Kiwi,
not added to it, so that collections with words of their own share one model.

Reads the small text files that users give: names of laws, synonyms, dictionaries.

UTF-8, at most one megabyte; everything else is told in one sentence. What a file means is its
caller's.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput, NotFound
from ondol.language.normalise import folded
from ondol.language.terms import Term, noun_may_end, plain

MAX_BYTES = 1_000_000


def read_user_file(path: Path, *, hint: str) -> str:
    """Return the text of ``path``; ``hint`` says what such a file looks like.

    Raises ``NotFound`` where there is none, ``InvalidInput`` for one that is no text or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", hint="check the path", param=str(path)) from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{path} is larger than {MAX_BYTES:,} bytes", hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text", hint=hint) from None


MAX_WORDS = 5_000
MAX_CHARS = 40

_HINT = 'write one word a line, or TOML: words = ["온돌이음", "전세 사기"]'
_WORDLIKE = re.compile(r"[0-9A-Za-z가-힣]")


class Dictionary:
    """Words kept whole; ``words`` as the user wrote them, blanks included."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words = tuple(dict.fromkeys(" ".join(folded(word).split()) for word in words))

    def __bool__(self) -> bool:
        return bool(self.words)

    @cached_property
    def digest(self) -> str:
        """A short name of these words: equal words, equal digest; empty for none."""
        if not self.words:
            return ""
        return hashlib.sha256("\n".join(sorted(self.words)).encode()).hexdigest()[:12]

    def find(self, text: str, boundaries: Collection[int]) -> Iterator[Term]:
        """Yield the words in folded ``text``, in order; ``boundaries`` is where morphemes meet."""
        if not self.words:
            return
        at = 0
        while match := self._pattern.search(text, at):
            if _begins(text, match.start(), boundaries) and _ends(text, match.end(), boundaries):
                yield Term(match.start(), match.end(), (plain(match[0].replace(" ", "")),))
                at = match.end()
            else:
                at = match.start() + 1

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        tree: dict[str, Any] = {}
        for word in self.words:
            branch = tree
            for char in word.casefold():
                branch = branch.setdefault(char, {})
            branch[""] = {}
        return re.compile(_expression(tree), re.IGNORECASE)


def read_dictionary(path: Path) -> tuple[str, ...]:
    """Return the words of a TOML file (``words = […]``) or of a text or CSV file, one a line.

    Raises ``NotFound`` where there is no such file and ``InvalidInput`` for one of another form.
    """
    text = read_user_file(path, hint=_HINT)
    if path.suffix.lower() == ".toml":
        try:
            found = tomllib.loads(text).get("words")
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(f"{path} is not valid TOML: {error}", hint=_HINT) from None
        if not isinstance(found, list):
            raise InvalidInput(f"{path} has no list `words`", hint=_HINT, param=str(path))
    else:
        rows = csv.reader(text.splitlines())
        found = [row[0].strip() for row in rows if row and not row[0].startswith("#")]
    return checked_words(found, source=str(path))


def checked_words(words: Sequence[Any], *, source: str) -> tuple[str, ...]:
    """Return ``words`` without blanks around them; raise ``InvalidInput`` for what is no word."""
    if len(words) > MAX_WORDS:
        raise InvalidInput(
            f"{source} has {len(words)} words; at most {MAX_WORDS}",
            hint="keep the words that are cut wrongly",
            param=source,
        )
    found = [" ".join(word.split()) if isinstance(word, str) else "" for word in words]
    for given, word in zip(words, found, strict=True):
        if word and (len(plain(folded(word))) < 2 or len(word) > MAX_CHARS):
            raise InvalidInput(
                f"{source}: {given!r} is no word of 2 to {MAX_CHARS} letters and digits",
                hint=_HINT,
                param=source,
            )
        if not isinstance(given, str):
            raise InvalidInput(f"{source}: {given!r} is no text", hint=_HINT, param=source)
    return tuple(dict.fromkeys(word for word in found if word))


def _expression(tree: dict[str, Any]) -> str:
    """Return an expression for a tree of characters, the longest word first."""
    ends = "" in tree
    parts = [
        (re.escape(char) if char != " " else " ?") + _expression(branch)
        for char, branch in tree.items()
        if char
    ]
    if not parts:
        return ""
    together = parts[0] if len(parts) == 1 and not ends else f"(?:{'|'.join(parts)})"
    return f"{together}?" if ends else together


def _begins(text: str, at: int, boundaries: Collection[int]) -> bool:
    return at == 0 or not _WORDLIKE.match(text, at - 1) or at in boundaries


def _ends(text: str, at: int, boundaries: Collection[int]) -> bool:
    if not _WORDLIKE.match(text, at) or at in boundaries:
        return True
    after = text[at]
    # A particle may follow at once; a letter or digit after a Latin word goes on with it.
    return "가" <= after <= "힣" and noun_may_end(text, at)

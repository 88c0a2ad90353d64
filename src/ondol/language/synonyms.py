"""Groups of words that mean the same: a query with one of them also looks for the others.

Applied to the query alone, so that a change needs no new index. A member is found whatever blanks
stand inside it and whatever particle follows it. The names of laws that come with the package and
their short forms are groups as well, to be asked by the full name alone: what a short form is cut
into (``법``) stands everywhere. Pure but for the reading of a file.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput
from ondol.language.dictionary import read_user_file
from ondol.language.normalise import folded
from ondol.language.terms import noun_may_end
from ondol.packs.legal.law_names import full_names

Group = tuple[str, ...]

MAX_GROUPS = 2_000
MAX_MEMBERS = 16
MAX_CHARS = 80
MAX_FOUND = 8
"""Groups of one query that are looked for; a longer query has words enough."""

_LONG = 4
_HINT = (
    'write one group a line, as in 손해배상,배상금 or, in TOML, groups = [["손해배상", "배상금"]]'
)
_LAW = re.compile(r"(?:법|법률|령|규칙|규정)$")
_WORDLIKE = re.compile(r"[0-9A-Za-z가-힣]")


class Synonyms:
    """``groups`` of words with equal meaning; of a word in several groups the first counts.

    ``to_first``: a word stands for the first of its group alone, and the first for no other.
    """

    def __init__(self, groups: Iterable[Sequence[str]] = (), *, to_first: bool = False) -> None:
        self.groups: tuple[Group, ...] = tuple(tuple(group) for group in groups)
        self._of: dict[str, Group] = {}
        for group in self.groups:
            for member in group:
                self._of.setdefault(_squeezed(member), group)
        self._to_first = to_first
        self._longest = max(map(len, self._of), default=0)
        self._first = frozenset(member[0] for member in self._of)

    def __bool__(self) -> bool:
        return bool(self.groups)

    def others(self, query: str) -> list[str]:
        """Return the other members of every group of which ``query`` holds one, in its order."""
        text = folded(query).casefold()
        places = [at for at, char in enumerate(text) if char.isalnum()]
        squeezed = "".join(text[at] for at in places)
        found: dict[str, None] = {}
        at = groups = 0
        while at < len(places) and groups < MAX_FOUND:
            member = self._at(text, places, squeezed, at)
            if not member:
                at += 1
                continue
            group = self._of[member][:1] if self._to_first else self._of[member]
            found |= dict.fromkeys(other for other in group if _squeezed(other) != member)
            at += len(member)
            groups += 1
        return list(found)

    def _at(self, text: str, places: Sequence[int], squeezed: str, at: int) -> str:
        """Return the longest member that begins at ``at`` of the squeezed text and is a word there."""
        start = places[at]
        if squeezed[at] not in self._first or (start and _WORDLIKE.match(text, start - 1)):
            return ""
        for size in range(min(self._longest, len(squeezed) - at), 1, -1):
            member = squeezed[at : at + size]
            if member in self._of and _whole(text, places[at + size - 1] + 1, letters=size):
                return member
        return ""


def read_synonyms(path: Path) -> tuple[Group, ...]:
    """Return the groups of a CSV file (one a line) or a TOML file.

    TOML: ``groups = [[…], …]``, or lines of a word with a list of others, as files of law names
    have them. Raises ``NotFound`` where there is no such file and ``InvalidInput`` for another form.
    """
    text = read_user_file(path, hint=_HINT)
    if path.suffix.lower() != ".toml":
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return checked_groups(list(csv.reader(lines)), source=str(path))
    try:
        found: Mapping[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}", hint=_HINT) from None
    groups = found.get("groups", [])
    named = [
        [word, *others] if isinstance(others, list) else others
        for word, others in found.items()
        if word != "groups"
    ]
    return checked_groups(
        [*groups, *named] if isinstance(groups, list) else groups, source=str(path)
    )


def checked_groups(groups: Any, *, source: str) -> tuple[Group, ...]:
    """Return ``groups`` as the user wrote them, blanks trimmed; ``InvalidInput`` for what is none."""
    if not isinstance(groups, list | tuple) or len(groups) > MAX_GROUPS:
        raise InvalidInput(f"{source} is no list of at most {MAX_GROUPS} groups", hint=_HINT)
    found: list[Group] = []
    for group in groups:
        if not isinstance(group, list | tuple) or not all(isinstance(m, str) for m in group):
            raise InvalidInput(f"{source}: {group!r} is no list of words", hint=_HINT)
        members = tuple(dict.fromkeys(" ".join(m.split()) for m in group if m.strip()))
        if not members:
            continue
        if not 2 <= len(members) <= MAX_MEMBERS:
            raise InvalidInput(
                f"{source}: the group of {members[0]!r} has {len(members)} words; "
                f"it must have 2 to {MAX_MEMBERS}",
                hint=_HINT,
            )
        for member in members:
            if len(_squeezed(member)) < 2 or len(member) > MAX_CHARS:
                raise InvalidInput(
                    f"{source}: {member!r} is no word of 2 to {MAX_CHARS} letters", hint=_HINT
                )
        found.append(members)
    return tuple(found)


@cache
def law_groups() -> tuple[Group, ...]:
    """Return the laws that come with the package, each with those short names that say "law".

    ``근기`` alone is too short to be taken for a law wherever it stands.
    """
    groups = (
        (full, *(short for short in shorts if _LAW.search(short)))
        for full, shorts in full_names().items()
    )
    return tuple(group for group in groups if len(group) > 1)


def _squeezed(word: str) -> str:
    return "".join(char for char in folded(word).casefold() if char.isalnum())


def _whole(text: str, end: int, *, letters: int) -> bool:
    """Whether a word of so many letters may end here; a long one may begin a longer compound."""
    if end >= len(text) or not _WORDLIKE.match(text, end):
        return True
    return "가" <= text[end] <= "힣" and (letters >= _LONG or noun_may_end(text, end))

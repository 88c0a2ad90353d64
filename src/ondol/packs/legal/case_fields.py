"""Fields of a legal text by rules: dates, sums, case numbers, articles, parties, punishments.

Each with its offsets, so that it can be shown where it stands. Korean forms, and the plain English ones
of dates and sums. Built on the same readers of terms and references that search uses. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ondol.language.amounts import PATTERN as _WORDED
from ondol.language.amounts import won
from ondol.language.normalise import folded
from ondol.packs.legal.references import references_of

_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)\s?[.\-/년]\s?(1[0-2]|0?[1-9])\s?[.\-/월]\s?(3[01]|[12]\d|0?[1-9])(?!\d)\s?(?:일|\.(?!\d))?"
)
_AMOUNT = re.compile(
    rf"{_WORDED}|(?<![\d.,])\d{{1,3}}(?:,\d{{3}})+\s?원|(?<![\d.,])\d{{4,12}}\s?원"
)
_DOLLARS = re.compile(r"(?<![\w.])(?:\$|USD\s?)(\d{1,3}(?:,\d{3})+|\d{1,12})(?:\.\d\d)?(?!\d)")
_PARTY = re.compile(
    r"(?P<role>원고|피고인|피고|피해자|채권자|채무자|신청인|피신청인|임대인|임차인|매도인|매수인|고소인|근로자|사용자|망인|의뢰인)"
    r"(?:\((?:이하|반소|본소)[^)]{0,30}\))?\s?(?P<name>[甲乙丙丁戊]|[A-Z](?![a-z])|[가-힣]{2,4}(?=[은는이가을를과와의,.\s(]|에게|으?로|에))"
)
_NO_NAME = re.compile(
    r"^(?:인[은는이가을를과와의]|주장|청구|회사|측|본인|소송|대리|명의|소유|상대|사이|모두|들|으로|에게|에서|에게서|부터|로서|로부|지위|보조|승계|적격|표시|변경|"
    r"행위|법인|조합|은행|국가|이므로|대한|대하|관하|또는|그리|위|및|각|등|중|해당|경우|의무|책임|권리|스스로|이나|이라)"
)
_PARTICLE = re.compile(r"(?:은|는|이|가|을|를|과|와|의)$")
_PRISON = re.compile(
    r"(?P<kind>징역|금고)\s?(?:(?P<years>\d{1,2})\s?년)?\s?(?:(?P<months>\d{1,2})\s?(?:개)?월)?"
)
_FINE = re.compile(
    rf"(?P<kind>벌금|과료)\s?(?P<sum>{_WORDED}|\d{{1,3}}(?:,\d{{3}})+\s?원|\d{{4,12}}\s?원)"
)
_SUSPENDED = re.compile(r"집행(?:을\s?)?유예")
_REACH = 60
_MOST = 60
_MOST_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class FieldMatch:
    """Characters ``[start, end)`` of a text and what they stand for in one spelling."""

    kind: str
    value: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Punishment:
    """A punishment that a text names: ``amount`` in months, or in won for a fine."""

    kind: str
    amount: int
    unit: str
    suspended: bool
    start: int
    end: int


def case_fields(text: str) -> dict[str, list[FieldMatch]]:
    """Return dates, amounts, cases, articles and parties of ``text``, in order, each value once."""
    text = text[:_MOST_CHARS]
    rows = {
        "dates": [
            FieldMatch(
                "date", f"{int(m[1])}-{int(m[2]):02}-{int(m[3]):02}", m[0].strip(), *m.span()
            )
            for m in _DATE.finditer(text)
        ],
        "amounts": _amounts(text),
        "cases": [],
        "articles": [],
        "parties": list(_parties(text)),
        "punishments": [
            FieldMatch(
                "punishment",
                f"{one.amount}{one.unit}",
                text[one.start : one.end],
                one.start,
                one.end,
            )
            for one in punishments(text)
        ],
    }
    if len(folded(text)) == len(text):  # offsets of references are into the folded text
        for start in range(0, len(text), 4_000):
            for one in references_of(text[start : start + 4_000]):
                name = "cases" if one.kind == "case" else "articles"
                a, b = start + one.start, start + one.end
                rows[name].append(
                    FieldMatch(one.kind, one.keys[0].removeprefix("ref"), text[a:b], a, b)
                )
    return {kind: _once(found) for kind, found in rows.items()}


def punishments(text: str) -> list[Punishment]:
    """Return the prison terms and fines that ``text`` names."""
    found: list[Punishment] = []
    for match in _PRISON.finditer(text):
        months = 12 * int(match["years"] or 0) + int(match["months"] or 0)
        if months:
            found.append(
                Punishment("prison", months, "months", _suspended(text, match), *match.span())
            )
    for match in _FINE.finditer(text):
        found.append(
            Punishment("fine", _won(match["sum"]), "won", _suspended(text, match), *match.span())
        )
    return sorted(found, key=lambda one: one.start)


def _suspended(text: str, match: re.Match[str]) -> bool:
    return _SUSPENDED.search(text[match.end() : match.end() + _REACH]) is not None


def _amounts(text: str) -> list[FieldMatch]:
    found = [
        FieldMatch("amount", f"{_won(m[0])} KRW", m[0], *m.span()) for m in _AMOUNT.finditer(text)
    ]
    found += [
        FieldMatch("amount", f"{m[1].replace(',', '')} USD", m[0], *m.span())
        for m in _DOLLARS.finditer(text)
    ]
    return sorted(found, key=lambda one: one.start)


def _won(text: str) -> int:
    digits = text.removesuffix("원").strip().replace(",", "")
    return int(digits) if digits.isdecimal() else won(text)


def _parties(text: str) -> list[FieldMatch]:
    found: list[FieldMatch] = []
    for match in _PARTY.finditer(text):
        name = match["name"]
        if _NO_NAME.match(name):
            continue
        bare = _PARTICLE.sub("", name) if len(name) > 3 else name
        found.append(FieldMatch("party", f"{match['role']} {bare}", match[0], *match.span()))
    return found


def _once(found: list[FieldMatch]) -> list[FieldMatch]:
    kept: dict[str, FieldMatch] = {}
    for one in found:
        kept.setdefault(one.value, one)
    return list(kept.values())[:_MOST]

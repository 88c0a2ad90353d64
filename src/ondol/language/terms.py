"""Terms that stay whole as keywords: case numbers, articles, dates, amounts, foreign words.

One spelling for each: ``제 60 조`` and ``60조`` become ``제60조``; ``2019 다 12345`` becomes
``2019다12345``; ``13,500원`` and ``1만 3500원`` become ``13500원`` and ``13500``. Every keyword consists of letters
and digits only, so that SQLite's ``unicode61`` tokenizer keeps it as one token.

Where a Korean noun may end: before a particle or a form of 이다, told without a model.

For words that are found by their letters (dictionaries, synonyms): ``전세`` is a word in ``전세를``
and none in ``전세계``. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ondol.language.amounts import PATTERN as AMOUNT
from ondol.language.amounts import won
from ondol.language.english import STOP_WORDS, stem

# Case marks of Korean courts (사건별 부호문자), civil, criminal, administrative, constitutional.
_CASE_MARKS = (
    "가합 가단 가소 나 다 라 마 바 사 아 자 차 카 타 파 하 그 카합 카단 카기 카담 카확 타경 타채 타기 차전 "
    "머 재다 재나 재가합 재가단 재두 재누 고합 고단 고정 고약 노 도 로 모 오 보 초기 초적 감고 감노 감도 전고 전노 전도 "
    "구합 구단 구 누 두 루 무 부 수 우 추 쿠 아 드합 드단 드 르 므 느합 느단 느 브 스 으 즈기 호 호기 "
    "허 후 흐 하합 하단 하면 회합 회단 개회 개확 간합 간단 헌가 헌나 헌다 헌라 헌마 헌바 헌사 헌아 푸 버 "
    "다카 재다카 재마 재므 재스 재그 재노 재도 재고합 재고단 "
)
CASE_MARKS = "|".join(sorted(set(_CASE_MARKS.split()), key=lambda mark: (-len(mark), mark)))
"""The marks of courts as a regular expression, the longest first."""
_COUNTERS = "가지|개|명|인|회|차|년|월|일|배|분|번|항|호"
_BARE = r"(?=\s|$|[의에은는이을를와과및,.·ㆍ()）「」?\]]|제|부터|까지|로|상|중)"
_UNITS = (
    "만원|억원|천원|백만원|조원|원|달러|유로|엔|퍼센트|프로|개월|년도|년|월|일|시간|분|초|주|세|명|인|회|차|건|"
    "층|평|호|번|위|등|배|점|대|km|kg|cm|mm|㎡|m|g|℃|°C"
)
_LETTER = r"A-Za-zÀ-ÖØ-öø-\u10ff\u1200-\u19af\u19ca-\u1cf1\u1cf4-\u1fff"
_IDEOGRAPH = r"\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"

_TERM = re.compile(
    rf"""
    (?P<case>(?<!\d)(?:(?:19|20)?\d\d(?:{CASE_MARKS})\d{{1,7}}|(?:19|20)\d\d\s{{0,2}}(?:{CASE_MARKS})\s{{0,2}}\d{{2,7}})(?!\d))
  | (?P<amount>{AMOUNT})
  | (?P<article>제\s?\d{{1,5}}\s?조(?:\s?의\s?\d{{1,3}}(?!\d|{_COUNTERS}))?
      |(?<![\d.,])\d{{1,4}}\s?조(?:\s?의\s?\d{{1,3}}(?!\d|{_COUNTERS})|{_BARE}(?!\s?\d*\s?[천백만억원])))
  | (?P<clause>제\s?\d{{1,4}}\s?[항호목편장절관](?:\s?의\s?\d{{1,3}}(?!\d|{_COUNTERS}))?
      |(?<![\d.,])\d{{1,3}}\s?항{_BARE})
  | (?P<date>(?<!\d)(?P<y>(?:19|20)\d\d)\s?[.\-/년]\s?(?P<m>1[0-2]|0?[1-9])\s?[.\-/월]\s?
      (?P<d>3[01]|[12]\d|0?[1-9])(?!\d)\s?(?:일|\.(?!\d))?)
  | (?P<number>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?)(?:\s?(?P<unit>%|{_UNITS}))?
  | (?P<word>[{_LETTER}][{_LETTER}0-9]*(?:['’\-.][{_LETTER}0-9]+)*)
  | (?P<ideographs>[{_IDEOGRAPH}]+)
    """,
    re.VERBOSE,
)
MAX_CHARS = 64  # of one keyword; what is longer is no word, and would bloat the index

_SPACES = re.compile(r"\s+")
_PART = re.compile(r"[\-.]")
_SAME_UNIT = {"%": "퍼센트", "프로": "퍼센트", "년도": "년", "㎡": "제곱미터"}


@dataclass(frozen=True, slots=True)
class Term:
    """Characters ``[start, end)`` of a text and the keywords they stand for."""

    start: int
    end: int
    keywords: tuple[str, ...]


def find_terms(text: str) -> Iterator[Term]:
    """Yield the terms of NFC ``text`` in order, without overlap. Plain Hangul words are not terms."""
    for match in _TERM.finditer(text):
        kind = _kind(match)
        words = tuple(word for word in _KEYWORDS[kind](match) if word)
        yield Term(match.start(), match.end(), words)


def plain(word: str) -> str:
    """Return the letters and digits of ``word``, lower-cased: one token to ``unicode61``."""
    lowered = word[:MAX_CHARS].lower()
    return lowered if lowered.isalnum() else "".join(c for c in lowered if c.isalnum())


def _kind(match: re.Match[str]) -> str:
    return next(kind for kind in _KEYWORDS if match[kind] is not None)


def _joined(match: re.Match[str]) -> tuple[str, ...]:
    return (_SPACES.sub("", match[0]),)


def _ordinal(match: re.Match[str]) -> tuple[str, ...]:
    compact = _SPACES.sub("", match[0])
    return (compact if compact.startswith("제") else "제" + compact,)


def _date(match: re.Match[str]) -> tuple[str, ...]:
    year, month, day = int(match["y"]), int(match["m"]), int(match["d"])
    return (f"{year}{month:02}{day:02}", f"{year}년", f"{month}월", f"{day}일")


def _amount(match: re.Match[str]) -> tuple[str, ...]:
    sum_of_won = won(match[0])
    return (f"{sum_of_won}원", f"{sum_of_won}")


def _number(match: re.Match[str]) -> tuple[str, ...]:
    number = match["number"][:MAX_CHARS].replace(",", "").replace(".", "점")
    unit = match["unit"]
    if unit is None:
        return (number,)
    return (number + (_SAME_UNIT.get(unit, plain(unit))), number)


def _word(match: re.Match[str]) -> tuple[str, ...]:
    """``BRCA1-mutant`` gives its parts and the whole, ``U.S.`` the whole only."""
    word = match[0].lower().replace("’", "'").removesuffix("'s").replace("'", "")
    parts = [plain(part) for part in _PART.split(word)]
    if len(parts) == 1:
        return () if parts[0] in STOP_WORDS else (stem(parts[0]),)
    found = [stem(part) for part in parts if len(part) > 1 and part not in STOP_WORDS]
    return (*found, stem(plain(word)))


def _ideographs(match: re.Match[str]) -> tuple[str, ...]:
    """A short run is a word (Hanja); a longer one, without spaces, is cut into pairs."""
    run = match[0]
    if len(run) <= 4:
        return (run,)
    return tuple(run[i : i + 2] for i in range(len(run) - 1))


_KEYWORDS: dict[str, Callable[[re.Match[str]], tuple[str, ...]]] = {
    "case": _joined,
    "amount": _amount,
    "article": _ordinal,
    "clause": _ordinal,
    "date": _date,
    "number": _number,
    "word": _word,
    "ideographs": _ideographs,
}


_PARTICLES = re.compile(
    "(?:들)?(?:이라는|라는|이라고|라고|이란|란|으로서|으로써|로서|로써|으로부터|로부터|에게서|에서는|에게는|에서도|"
    "에서의|에서|에게|에는|에도|에|으로는|으로|로는|로|까지는|까지|부터|처럼|보다|마다|만을|만이|만|조차|은|는|이|가|을|를|"
    "과의|와의|과는|와는|상의|의|과|와|도|상|이나|나|이며|며|이고|고|이다|입니다|인지|인가요|인|이든|든|이라도|라도)?"
    "(?![가-힣])"
)


def noun_may_end(text: str, at: int) -> bool:
    """Whether a noun of NFC ``text`` may end at ``at``: no Hangul follows, or only particles do."""
    return _PARTICLES.match(text, at) is not None

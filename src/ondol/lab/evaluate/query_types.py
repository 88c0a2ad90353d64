"""What kind of query one is: a look-up by citation, a question, or keywords.

A pure function of the text, so that figures per kind can be compared between runs. Knows Korean and
English by their outer marks only.
"""

from __future__ import annotations

import re
from typing import Literal

from ondol.packs.legal.references import Reference, references_of

QueryType = Literal["citation", "question", "keywords"]
QUERY_TYPES: tuple[QueryType, ...] = ("citation", "question", "keywords")

MAX_KEYWORDS = 6  # words; what is longer is a sentence
_AROUND = frozenset(
    [
        *(
            "대법원",
            "고등법원",
            "지방법원",
            "헌법재판소",
            "법원",
            "판결",
            "판례",
            "결정",
            "선고",
            "사건",
        ),
        *(
            "전문",
            "원문",
            "조문",
            "내용",
            "요지",
            "규정",
            "전원합의체",
            "구",
            "및",
            "와",
            "과",
            "등",
        ),
        *("의", "에", "은", "는", "이", "가", "을", "를", "에서", "관한", "대한", "대해"),
        *("알려줘", "보여줘", "찾아줘", "뭐야", "무엇", "무엇인가", "무엇인가요", "무엇입니까"),
    ]
)
_ENDING = re.compile(
    r"(?:[가-힣]까|나요|가요|[은는ㄴ인]가|[은는인]지|여부|니|냐|까요|줘|주세요|시오|다|요)[.!]*$"
)
_ASKING = re.compile(
    r"(?:^|\s)(?:무엇|뭐|누구|누가|언제|어디|어떻게|어떤|어느|왜|몇|얼마)"
    r"|^(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|does|do|did|can|could|may|"
    r"must|should|will|would|has|have)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")


def query_type(query: str) -> QueryType:
    """Return ``citation`` where a query is hardly more than the case or article it names,
    ``keywords`` for up to six words that ask nothing, else ``question``.

    A statement to be checked, or an issue as a court words it, counts as a question.
    """
    references = references_of(query)
    if references and _rest_is_filling(query, references):
        return "citation"
    text = " ".join(query.split())
    if text.endswith(("?", "？")) or _ASKING.search(text) or _ENDING.search(text):
        return "question"
    return "keywords" if len(_WORD.findall(text)) <= MAX_KEYWORDS else "question"


def _rest_is_filling(query: str, references: tuple[Reference, ...]) -> bool:
    """Whether outside of the references only a law's name and words around a citation stand."""
    outside, at, law_open = [], 0, True
    for reference in references:
        outside.append(query[at : reference.start])
        law_open = law_open and reference.kind == "article" and reference.named
        at = max(at, reference.end)
    before = _WORD.findall(outside[0])
    if law_open and not _ASKING.search(outside[0]):
        # A law the list does not know: all before the article may be its name.
        before = before[:-8] if before and before[-1].endswith(_LAWS) else before
    rest = [*before, *_WORD.findall(" ".join(outside[1:])), *_WORD.findall(query[at:])]
    return all(_stem(word) in _AROUND or word.isdecimal() for word in rest)


_LAWS = ("법", "법률", "령", "규칙", "규정", "조례", "특례법")


def _stem(word: str) -> str:
    for ending in ("의", "을", "를", "은", "는", "이", "가"):
        if len(word) > len(ending) + 1 and word.endswith(ending):
            return word.removesuffix(ending)
    return word

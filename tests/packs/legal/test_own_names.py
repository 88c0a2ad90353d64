from __future__ import annotations

import pytest

from ondol.core.types import Passage, ReadDocument
from ondol.documents.chunking.chunking import chunk
from ondol.packs.legal.own_names import document_keys, own_keys
from ondol.packs.legal.references import references_of

RULES = """제1장 총칙

제1조(목적) 이 규칙은 근로조건을 정한다.

제2장 휴가

제12조(연차휴가) ① 회사는 1년간 80퍼센트 이상 출근한 사원에게 15일의 휴가를 준다.
② 제1항에도 불구하고 1년 미만인 사원에게는 1개월 개근 시 1일을 준다. 민법 제750조는 적용하지 아니한다.

제12조의2(보상휴가) 회사는 근로자대표와 합의하여 보상휴가를 줄 수 있다.
"""


def keys_of(document: ReadDocument, heading: str = "") -> tuple[str, ...]:
    passage = Passage(document.text, 0, len(document.text), None, heading)
    return own_keys(document, [passage])[0]


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("민법 제750조(불법행위의 내용)", "ref민법제750조"),
        ("민법 제 750 조", "ref민법제750조"),
        ("「근로기준법」 제60조 제1항", "ref근로기준법제60조"),
        (
            "채무자 회생 및 파산에 관한 법률 제566조(면책의 효력)",
            "ref채무자회생및파산에관한법률제566조",
        ),
        ("근기법 제60조", "ref근로기준법제60조"),
        ("상법 제391조의2(감사의 이사회출석)", "ref상법제391조의2"),
        ("손해배상(기) (대법원 2019-05-30 선고 2016다276177)", "ref2016다276177"),
        ("임금 (대법원 2024-02-08 선고 2018다206899, 206905)", "ref2018다206905"),
    ],
)
def test_a_record_is_known_by_its_title(title: str, key: str) -> None:
    assert key in keys_of(ReadDocument(source="x", title=title, text="내용"))


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("corpus.jsonl#민법_750", "ref민법제750조"),
        ("corpus.jsonl#상법_391의2", "ref상법제391조의2"),
        ("/files/2019다12345.pdf", "ref2019다12345"),
    ],
)
def test_a_record_is_known_by_its_id(source: str, key: str) -> None:
    assert key in document_keys(source, "")


def test_what_a_text_or_a_title_merely_cites_is_not_its_own() -> None:
    cites = ReadDocument(source="n", title="민법 제750조의 해석", text="2019다12345, 민법 제751조")
    assert "ref민법제750조" not in keys_of(cites)
    assert "ref2019다12345" not in keys_of(cites)
    assert "ref민법제751조" not in keys_of(cites)


def test_every_article_of_a_whole_statute_is_found_in_one_of_its_passages() -> None:
    document = ReadDocument(source="취업규칙.txt", title="취업규칙", text=RULES)
    passages = chunk(document, target_chars=80, overlap_chars=20)
    keys = own_keys(document, passages)
    for query in ("취업규칙 제1조", "취업규칙 12조", "취업규칙 제12조의2"):
        (reference,) = references_of(query)
        owners = [p for p, own in zip(passages, keys, strict=True) if reference.keys[0] in own]
        assert owners, query
        number = query.split()[-1].removeprefix("제")
        assert any(f"제{number}(" in owner.text for owner in owners)
    assert all("ref민법제750조" not in own for own in keys)


def test_headings_name_cases_and_articles() -> None:
    document = ReadDocument(source="digest.md", title="판례집", text="판시사항")
    assert "ref2016다276177" in keys_of(document, "민사 > 대법원 2016다276177 판결")
    assert "ref민법제750조" in keys_of(document, "민법 > 제750조(불법행위의 내용)")

"""What each kind of document is recognised by, and where it is cut."""

from __future__ import annotations

from typing import Any

import pytest

from ondol.core.chunk_options import ChunkStrategy
from ondol.core.types import Passage, ReadDocument
from ondol.documents.chunking.chunk_plan import kind_of
from ondol.documents.chunking.chunking import chunk
from ondol.documents.chunking.index_words import indexed_text
from ondol.packs.legal.own_names import own_keys

BODY = "근로자는 이 조에서 정한 바에 따라 휴가를 신청할 수 있고 회사는 이를 보장하여야 한다."
ITEMS = "\n".join(f"  {n}. {n}번째 사유에 해당하여 휴가를 신청하는 경우" for n in range(1, 30))
LAW = f"""근로기준법
[시행 2025. 10. 23.] [법률 제20520호, 2024. 10. 22., 일부개정]

제1장 총칙
제1조(목적) 이 법은 헌법에 따라 근로조건의 기준을 정한다. {BODY}
제2조(정의) ① 이 법에서 사용하는 용어의 뜻은 다음과 같다. {BODY}
{ITEMS}
② 제1항의 사유는 회사가 정한다. {BODY} {BODY} {BODY} {BODY}
③ 회사는 이를 알린다. {BODY} {BODY} {BODY}
제2장 휴가
제3조(휴가) {BODY} {BODY}
"""
JUDGMENT = f"""# 이혼

## 판시사항

[1] 민법 제840조 제6호에 정한 사유의 의미와 판단 기준
[2] 그 사유에 해당하는지 여부

## 판결요지

[1] {BODY} {BODY} {BODY}
  [2] {BODY} {BODY} {BODY}

## 참조조문

[1] 민법 제840조 제6호 / [2] 민법 제840조 제6호

## 판례내용

【원고, 상고인】                원고 (소송대리인 법무법인 정인)
【원심판결】             부산지법 2009. 7. 10. 선고 2009르216 판결
【주    문】
  상고를 기각한다.  상고비용은 원고가 부담한다.

【이    유】  상고이유를 본다.
  1. 제1점에 대하여
  {BODY} {BODY} 원고는 2005. 9. 30. 혼인신고를 하였다.
  2. 제2점에 대하여
  가. 원심은 다음과 같이 판단하였다. {BODY} {BODY}
  나. 그러나 이는 정당하다. {BODY} {BODY}
  3. 결론
  그러므로 상고를 기각하기로 하여 {BODY} {BODY}
"""
COURT_PDF = """서 울 중 앙 지 방 법 원
판         결
사       건   2019가단12345  손해배상(기)
주         문
1. 피고는 원고에게 10,000,000원을 지급하라.
청 구 취 지
주문과 같다.
이         유
1. 기초사실
가. 원고는 2018. 3. 5. 피고와 계약을 체결하였다.
"""


def record(text: str, title: str = "", **metadata: Any) -> ReadDocument:
    return ReadDocument("r.jsonl#1", title, text, metadata=metadata, media_type="application/json")


def cut(document: ReadDocument, strategy: ChunkStrategy = "auto") -> list[Passage]:
    return chunk(document, target_chars=400, overlap_chars=60, strategy=strategy)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (ReadDocument("a.pdf", "ko_labor", LAW), "statute"),
        (record("본문", title="민법 제750조(불법행위의 내용)"), "statute"),
        (ReadDocument("2009므2413.md", "이혼", JUDGMENT), "judgment"),
        (ReadDocument("a.pdf", "판결", COURT_PDF), "judgment"),
        (record(JUDGMENT), "judgment"),
        (record("배달이 빨라요. 맛있어요."), "record"),
        (record("제3조에 따라 처리하였습니다."), "record"),
        (ReadDocument("a.md", "", "# Guide\n\nText.\n\n## Install\n\nMore."), "heading"),
        (ReadDocument("a.txt", "", "Plain text. Nothing else."), "recursive"),
        (ReadDocument("a.txt", "", "민법 제3조, 제4조와\n제5조를 적용한다.\n이유 없다."), "recursive"),
        (ReadDocument("a.txt", "", "보고서\n\n이 유\n그냥 이유를 적는다."), "recursive"),
    ],
)  # fmt: skip
def test_a_document_is_recognised_by_its_structure(document: ReadDocument, kind: str) -> None:
    assert kind_of(document) == kind


def test_a_passage_of_a_statute_carries_law_chapter_article_and_clause() -> None:
    document = ReadDocument("a.pdf", "ko_labor", LAW)
    passages = cut(document)
    headings = [p.heading for p in passages]
    assert headings[0] == "근로기준법"
    assert "근로기준법 > 제1장 총칙 > 제1조(목적)" in headings
    assert "근로기준법 > 제2장 휴가 > 제3조(휴가)" in headings
    inner = [p for p in passages if "제2조(정의) > " in p.heading]
    assert any(p.heading.endswith("제1항 제11호") or "제1항 제" in p.heading for p in inner)
    last = next(p for p in inner if p.heading.endswith("> 제3항") or p.text.startswith("②"))
    assert "근로기준법 > 제1장 총칙 > 제2조(정의)" in indexed_text(document, last)
    for passage in inner:  # a cut stands where a 항 or 호 begins
        assert passage.text[0] in "①②③" or passage.text[:2].rstrip(".").strip().isdigit()
    keys = own_keys(document, passages)
    assert all("ref근로기준법제2조" in keys[passages.index(p)] for p in inner)


def test_all_passages_of_an_article_have_the_article_as_parent() -> None:
    document = ReadDocument("a.pdf", "ko_labor", LAW)
    parents = {p.parent for p in cut(document) if "제2조(정의)" in p.heading}
    assert len(parents) == 1
    (parent,) = parents
    assert parent is not None
    text = LAW[parent[0] : parent[1]]
    assert text.startswith("제2조(정의)")
    assert "③ 회사는" in text
    assert "제2장" not in text


def test_a_record_of_one_article_is_whole_under_its_chapter() -> None:
    article = record(BODY, title="민법 제2조(신의성실)", chapter="제1편 총칙 > 제1장 통칙")
    (passage,) = cut(article)
    assert passage.heading == "제1편 총칙 > 제1장 통칙"
    assert passage.parent == (0, len(BODY))


def test_a_judgment_is_cut_at_its_parts_its_items_and_its_points() -> None:
    passages = cut(ReadDocument("2009므2413.md", "이혼", JUDGMENT))
    found = {p.heading: p for p in passages}
    assert found["이혼 > 판결요지 > [1]"].text.startswith("## 판결요지")
    assert found["이혼 > 판결요지 > [2]"].text.startswith("[2]")
    assert found["이혼 > 참조조문"].text.startswith("## 참조조문")
    assert found["이혼 > 판례내용 > 주문"].text.startswith("【주    문】")
    assert "이혼 > 판례내용 > 이유 > 1. 제1점에 대하여" in found
    assert any(h.startswith("이혼 > 판례내용 > 이유 > 2. 제2점에 대하여 > ") for h in found)
    assert not any(p.heading.endswith("30.") for p in passages)  # a date is no point


def test_a_judgment_of_a_court_without_markdown_goes_under_its_title() -> None:
    passages = cut(ReadDocument("a.pdf", "2019가단12345", COURT_PDF))
    assert [p.heading for p in passages if p.text.startswith("주         문")] == [
        "2019가단12345 > 주문"
    ]


def test_a_record_is_one_passage_up_to_what_an_encoder_reads() -> None:
    review = "맛있고 양이 많아요. " * 60
    assert len(cut(record(review))) == 1
    assert len(cut(record(review * 10))) > 10
    assert len(cut(record("It was good and there was a lot. " * 50))) == 1


def test_a_named_strategy_is_taken_at_its_word() -> None:
    law = ReadDocument("a.pdf", "근로기준법", LAW)
    assert all(p.heading == "" for p in cut(law, "recursive"))
    assert {p.heading for p in cut(law, "heading")} >= {"제2장 휴가 > 제3조(휴가)"}
    review = record("# 제목\n\n좋아요.\n\n## 하나\n\n나빠요.")
    assert [p.heading for p in cut(review, "record")] == [""]


def test_small_sections_are_read_with_those_around_them() -> None:
    text = "# Guide\n\nIntro.\n\n## A\n\n" + "Sentence. " * 20 + "\n\n## B\n\n" + "Other. " * 40
    document = ReadDocument("a.md", "", text)
    assert {p.parent for p in cut(document)} == {(0, len(text))}
    long = "# Guide\n\n" + "\n\n".join(f"## S{n}\n\n" + "Sentence. " * 90 for n in range(3))
    parents = [p.parent for p in cut(ReadDocument("a.md", "", long))]
    assert all(parent is not None and parent[1] - parent[0] < 1100 for parent in parents)


def test_a_chapter_keeps_its_note_of_amendment_whole() -> None:
    chapter = "제6편 항공운송 <신설 2011.5.23> > 제2장 운송 <개정 2014.5.20>"
    article = ReadDocument(
        "r.jsonl#917", "상법 제917조(처분청구권)", BODY, metadata={"chapter": chapter}
    )
    assert [one.heading for one in cut(article)] == [chapter]


def test_what_an_encoder_reads_is_estimated_by_the_width_of_letters() -> None:
    word = "가나 "  # 0.7 + 0.7 + 0.27 tokens
    for count, whole in ((280, True), (300, False)):
        found = chunk(
            ReadDocument("r.jsonl#1", "", word * count, media_type="application/json"),
            target_chars=300,
            overlap_chars=0,
            strategy="record",
        )
        assert (len(found) == 1) == whole

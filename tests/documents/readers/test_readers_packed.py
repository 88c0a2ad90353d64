"""DOCX and EPUB: structure kept, hostile archives refused at bounded cost."""

from __future__ import annotations

import pytest
from tests.documents.readers.packed import docx, epub, packed, paragraph, part, row

from ondol.core.types import ReadDocument
from ondol.documents.readers import ReadFailure, ReadLimits, read_bytes

LIMITS = ReadLimits()
STYLES = part(
    "styles",
    '<w:style w:styleId="1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="a9"><w:name w:val="내 제목"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>',
)
RATES = (
    "<w:tbl>"
    + row("구분", "일비", "숙박비 한도")
    + row("국내: 제주", "34,000원", "118,000원")
    + row("국내: 그 밖", "29,000원", "92,000원")
    + "</w:tbl>"
)


def document(data: bytes, name: str = "a.docx") -> ReadDocument:
    (item,) = read_bytes(data, name=name, limits=LIMITS)
    assert isinstance(item, ReadDocument), item
    return item


def code(data: bytes, name: str = "a.docx", limits: ReadLimits = LIMITS) -> str:
    (item,) = read_bytes(data, name=name, limits=limits)
    assert isinstance(item, ReadFailure), item
    assert repr(name) in item.error.message
    assert item.error.hint
    return item.error.code


def test_docx_keeps_headings_lists_and_rows_in_order() -> None:
    body = (
        paragraph("출장 규정", '<w:pStyle w:val="1"/>')
        + paragraph("여비", '<w:pStyle w:val="a9"/>')
        + paragraph("표에 따른다.")
        + RATES
        + paragraph("첫째", '<w:numPr><w:numId w:val="3"/></w:numPr>')
        + paragraph("둘째", '<w:numPr><w:numId w:val="3"/></w:numPr>')
    )
    found = document(docx(body, members={"word/styles.xml": STYLES}))
    assert found.text == (
        "# 출장 규정\n\n## 여비\n\n표에 따른다.\n\n"
        "구분 | 일비 | 숙박비 한도\n"
        "국내: 제주 | 일비: 34,000원 | 숙박비 한도: 118,000원\n"
        "국내: 그 밖 | 일비: 29,000원 | 숙박비 한도: 92,000원\n"
        "- 첫째\n- 둘째"
    )
    assert found.title == "출장 규정"


def test_docx_leaves_out_deleted_text_field_codes_and_second_copies() -> None:
    run = "<w:r><w:t>{}</w:t></w:r>"
    body = (
        "<w:p>" + run.format("Kept.")
        + f"<w:del>{run.format('Gone.')}</w:del>"
        + "<w:r><w:instrText>PAGE</w:instrText></w:r>"
        + f"<w:Choice>{run.format(' Once.')}</w:Choice><w:Fallback>{run.format(' Twice.')}</w:Fallback>"
        + "</w:p>"
    )  # fmt: skip
    notes = part("footnotes", f"<w:footnote>{paragraph('A note.')}</w:footnote>")
    core = (
        "<c:coreProperties xmlns:c='c' xmlns:dc='d'><dc:title>Rules</dc:title></c:coreProperties>"
    )
    found = document(docx(body, members={"word/footnotes.xml": notes, "docProps/core.xml": core}))
    assert found.text == "Kept. Once.\n\nA note."
    assert found.title == "Rules"


def test_docx_cells_that_go_on_speak_in_every_row() -> None:
    restart = '<w:tc><w:tcPr><w:vMerge w:val="restart"/></w:tcPr><w:p><w:r><w:t>서울</w:t></w:r></w:p></w:tc>'
    goes_on = "<w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p/></w:tc>"
    cells = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    body = (
        "<w:tbl>" + row("지역", "등급", "값")
        + f"<w:tr>{restart}{cells.format('가')}{cells.format('10')}</w:tr>"
        + f"<w:tr>{goes_on}{cells.format('나')}{cells.format('20')}</w:tr></w:tbl>"
    )  # fmt: skip
    assert document(docx(body)).text.split("\n")[1:] == [
        "서울 | 등급: 가 | 값: 10",
        "서울 | 등급: 나 | 값: 20",
    ]


def test_hostile_archives_fail_alone() -> None:
    laughs = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    assert code(packed({"word/document.xml": laughs})) == "damaged"
    bomb = docx("<w:p><w:r><w:t>" + "a" * 40_000_000 + "</w:t></w:r></w:p>")
    assert len(bomb) < 200_000
    assert code(bomb, limits=ReadLimits(max_chars=1_000_000)) == "too_large"
    whole = docx(paragraph("Words."))
    assert code(whole[: len(whole) // 2]) == "damaged"
    assert code(packed({"word/other.xml": "<a/>"})) == "damaged"
    assert code(docx("<w:p>")) == "damaged"
    assert code(docx("")) == "empty"
    assert code(b"plain words\n" * 50) == "wrong_type"
    locked = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le") * 9
    assert code(locked) == "encrypted"


def test_epub_reads_its_spine_in_order() -> None:
    chapter = "<html><head><title/></head><body><h1>{}</h1><p>{}</p></body></html>"
    found = document(
        epub({"b.xhtml": chapter.format("One", "First."), "a%20.xhtml": ""}
             | {"a.xhtml": chapter.format("Two", "Second.")}),
        "a.epub",
    )  # fmt: skip
    assert found.text == "# One\n\nFirst.\n\n# Two\n\nSecond."
    assert found.title == "A book"
    assert found.warnings == ("1 chapters are missing from the file",)


def test_epub_refusals() -> None:
    drm = "<encryption><CipherReference URI='OPS/a.xhtml'/></encryption>"
    page = {"a.xhtml": "<html><body><p>x</p></body></html>"}
    assert code(epub(page, extra={"META-INF/encryption.xml": drm}), "a.epub") == "encrypted"
    assert code(epub({}), "a.epub") == "empty"
    assert code(packed({"mimetype": "application/epub+zip"}), "a.epub") == "damaged"


@pytest.mark.parametrize("name", ["a.bin", "a.docx", "a"])
def test_the_bytes_decide(name: str) -> None:
    assert document(docx(paragraph("Words.")), name).text == "Words."

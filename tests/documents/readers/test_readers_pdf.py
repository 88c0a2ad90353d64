"""PDFs: those we craft, and every real one of the shared data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.documents.readers.documents import DATA, pdf

from ondol.core.types import ReadDocument
from ondol.documents.readers import ReadFailure, ReadItem, ReadLimits, read, read_bytes

LIMITS = ReadLimits()
WORDS = "A sentence of plain words that fills a line of this page. "

EXPECTED = json.loads((DATA.parent / "hostile_files.json").read_text("utf-8"))["pdfs"]
REFUSED = {name: wanted["refused"] for name, wanted in EXPECTED.items() if "refused" in wanted}
WARNED = {name for name, wanted in EXPECTED.items() if "warns" in wanted}


def only(data: bytes, limits: ReadLimits = LIMITS) -> ReadItem:
    (item,) = read_bytes(data, name="a.pdf", limits=limits)
    return item


def document(data: bytes) -> ReadDocument:
    item = only(data)
    assert isinstance(item, ReadDocument), item
    return item


def code(data: bytes, limits: ReadLimits = LIMITS) -> str:
    item = only(data, limits)
    assert isinstance(item, ReadFailure), item
    assert "'a.pdf'" in item.error.message
    assert item.error.hint
    return item.error.code


def complaints(found: ReadDocument) -> list[str]:
    """Return the warnings that tell of a loss: running lines left out are none."""
    return [warning for warning in found.warnings if "left out" not in warning]


def test_pages_stand_at_their_offsets() -> None:
    found = document(pdf(texts=["First page.\nSecond line.", "", "Third page."], title="A title"))
    assert found.title == "A title"
    assert [page.number for page in found.pages] == [1, 2, 3]
    assert [found.text[page.start : page.end] for page in found.pages] == [
        "First page.\nSecond line.", "", "Third page.",
    ]  # fmt: skip
    assert found.media_type == "application/pdf"


def test_title_falls_back_to_the_first_line() -> None:
    assert document(pdf(texts=["12\nWork rules\nmore"])).title == "Work rules"
    assert document(pdf(texts=["Work rules"], title="Microsoft Word - x.doc")).title == "Work rules"


def test_running_lines_go_but_the_first_header_and_all_text_stay() -> None:
    texts = [
        f"Work rules\nBody {number * 37} says {WORDS}\nPage {number} of 6" for number in range(1, 7)
    ]
    found = document(pdf(texts=texts))
    assert found.text.count("Work rules") == 1
    assert "Page " not in found.text
    assert found.warnings == (
        "repeated headers, footers and page numbers were left out on 6 of 6 pages",
    )
    assert [f"Body {number * 37} says" in found.text for number in range(1, 7)] == [True] * 6


def test_numbers_that_do_not_count_pages_stay() -> None:
    values = (12, 99, 40, 7, 63)
    texts = [f"{value}\nThe value of this page is {value * value}." for value in values]
    assert document(pdf(texts=texts)).text == "\n\n".join(texts)


def test_refusals() -> None:
    assert code(pdf(pages=0)) == "empty"
    assert code(pdf(pages=3)) == "empty"
    assert code(pdf(pages=10_000)) == "too_many_pages"
    assert code(pdf(texts=[WORDS]), ReadLimits(max_chars=10)) == "too_large"
    assert code(pdf(texts=[WORDS])[:60]) == "damaged"
    assert code(b"%PDF-1.7\n" + b"\x00\xff garbage" * 100) == "damaged"


def test_a_pdf_is_read_whatever_its_name() -> None:
    (item,) = read_bytes(pdf(texts=[WORDS]), name="upload.txt", limits=LIMITS)
    assert isinstance(item, ReadDocument)
    assert item.media_type == "application/pdf"


def test_every_shared_pdf_has_its_outcome(shared_data: Path) -> None:
    folder = shared_data / "pdfs"
    entries = [
        json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()
    ]
    limits = ReadLimits(max_pages=5000)
    for entry in entries:
        name = entry["file"]
        if entry["observed"].get("pdfium_pages", 0) > 20:
            continue  # the long ones: below
        (item,) = read(folder / name, limits=limits)
        if name in REFUSED:
            assert isinstance(item, ReadFailure), name
            assert (name, item.error.code) == (name, REFUSED[name])
            continue
        assert isinstance(item, ReadDocument), (name, item)
        assert len(item.pages) == entry["observed"]["pdfium_pages"], name
        assert bool(complaints(item)) == (name in WARNED), (name, item.warnings)
        assert item.title.strip(), name


def test_long_shared_pdfs_read_whole(shared_data: Path) -> None:
    for name, pages in (("ko_labor_standards_act.pdf", 25), ("ko_ncsc_guide_105p.pdf", 105)):
        (item,) = read(shared_data / "pdfs" / name, limits=LIMITS)
        assert isinstance(item, ReadDocument)
        assert len(item.pages) == pages
        assert bool(complaints(item)) == (name in WARNED)
    (item,) = read(
        shared_data / "pdfs" / "huge_619p_us_government.pdf", limits=ReadLimits(max_pages=600)
    )
    assert isinstance(item, ReadFailure)
    assert "619 pages" in item.error.message


def test_statutes_read_with_articles_at_line_starts(shared_data: Path) -> None:
    (item,) = read(shared_data / "pdfs" / "ko_labor_standards_act.pdf", limits=LIMITS)
    assert isinstance(item, ReadDocument)
    assert "\n제60조(연차 유급휴가) ①" in item.text
    assert "국가법령정보센터" not in item.text
    assert item.title == "근로기준법"


def test_korean_in_cp949_equals_its_utf8_copy(shared_data: Path) -> None:
    texts = [
        item.text
        for name in ("korean_cp949.txt", "korean_utf8.txt")
        for item in read(shared_data / "text_hostile" / name, limits=LIMITS)
        if isinstance(item, ReadDocument)
    ]
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_naughty_strings_all_read(shared_data: Path) -> None:
    found = list(read(shared_data / "text_hostile" / "blns.json", limits=LIMITS))
    assert len(found) == 515
    assert all(isinstance(i, ReadDocument) or i.error.code == "empty" for i in found)


@pytest.mark.parametrize("cut", [100, 5_000, 200_000])
def test_truncated_real_pdf_is_damaged_or_read(shared_data: Path, cut: int) -> None:
    data = (shared_data / "pdfs" / "ko_labor_standards_act.pdf").read_bytes()[:cut]
    assert code(data) == "damaged"

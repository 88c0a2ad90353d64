"""PDF pages by geometry: tables as rows, reading order, cut words, scans, and places of quotations."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.documents.readers.documents import at, pdf, stroke

from ondol.core.errors import ReadError
from ondol.core.types import ReadDocument
from ondol.documents.readers import (
    IsolatedReader,
    ReadFailure,
    ReadLimits,
    locate,
    read,
    read_bytes,
)

LIMITS = ReadLimits()
DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo" / "work_rules_ko.pdf"
COLUMNS = (72, 200, 300, 400)
LEVELS = (700, 680, 660, 640)
FRAME = "".join(stroke(72, y, 400, y) for y in LEVELS) + "".join(
    stroke(x, 700, x, 640) for x in COLUMNS
)


def document(*contents: str) -> ReadDocument:
    (item,) = read_bytes(pdf(contents=contents), name="a.pdf", limits=LIMITS)
    assert isinstance(item, ReadDocument), item
    return item


def row(y: float, *cells: str) -> str:
    return "".join(at(x + 4, y, cell) for x, cell in zip(COLUMNS, cells, strict=False))


def test_a_drawn_table_becomes_rows_in_its_place() -> None:
    page = (
        at(72, 740, "Before the table.")
        + row(686, "Place", "Daily", "Lodging")
        + row(666, "Jeju", "34,000", "118,000")
        + row(646, "Seoul", "29,000", "92,000")
        + at(72, 600, "After the table.")
        + FRAME
    )
    found = document(page, at(72, 740, "Second page."))
    assert found.text == (
        "Before the table.\n\nPlace | Daily | Lodging\n"
        "Jeju | Daily: 34,000 | Lodging: 118,000\n"
        "Seoul | Daily: 29,000 | Lodging: 92,000\n\nAfter the table.\n\nSecond page."
    )
    assert [found.text[page.start : page.end][:6] for page in found.pages] == ["Before", "Second"]


def test_cells_are_read_by_place_not_by_the_order_they_are_written_in() -> None:
    columns = zip(("Place", "Jeju", "Seoul"), ("Daily", "34", "29"), ("Night", "118", "92"), strict=True)  # fmt: skip
    written = "".join(
        at(x + 4, y, cell)
        for x, column in zip(COLUMNS, zip(*columns, strict=True), strict=False)
        for y, cell in zip((686, 666, 646), column, strict=True)
    )
    assert document(written + FRAME).text.split("\n")[1:] == [
        "Jeju | Daily: 34 | Night: 118",
        "Seoul | Daily: 29 | Night: 92",
    ]


def test_a_cell_without_a_line_below_it_speaks_for_both_rows() -> None:
    lines = (
        "".join(stroke(72, y, 400, y) for y in (700, 680, 640))
        + stroke(200, 660, 400, 660)
        + "".join(stroke(x, 700, x, 640) for x in COLUMNS)
    )
    page = row(686, "Area", "Low", "High") + row(666, "", "1", "2") + row(646, "", "3", "4")
    assert document(page + at(76, 656, "North") + lines).text.split("\n")[1:] == [
        "North | Low: 1 | High: 2",
        "North | Low: 3 | High: 4",
    ]


def test_figures_in_line_are_a_table_without_lines() -> None:
    page = (
        at(72, 740, "The year in figures, told in a sentence that fills the line of the page.")
        + row(700, "", "2022", "2021")
        + row(686, "Sales", "$ 206,916", "$ 157,366")
        + row(672, "Cost", "(45,838)", "(31,315)")
        + row(658, "Profit", "161,078", "126,051")
        + at(72, 630, "And a sentence after it.")
    )
    assert document(page).text == (
        "The year in figures, told in a sentence that fills the line of the page.\n\n"
        "| 2022 | 2021\nSales | 2022: $ 206,916 | 2021: $ 157,366\n"
        "Cost | 2022: (45,838) | 2021: (31,315)\nProfit | 2022: 161,078 | 2021: 126,051\n\n"
        "And a sentence after it."
    )


def test_a_page_in_two_columns_written_across_is_read_down() -> None:
    left = [f"left line number {n} of the text" for n in "abcdefgh"]
    right = [f"right line number {n} of the text" for n in "abcdefgh"]
    page = "".join(
        at(60, 740 - 14 * n, one) + at(330, 740 - 14 * n, other)
        for n, (one, other) in enumerate(zip(left, right, strict=True))
    )
    assert document(page).text == "\n".join(left + right)


def test_plain_pages_stay_as_they_are() -> None:
    lines = [f"Sentence {n} of a page of plain words, 17 of them, in 3 lines." for n in range(9)]
    page = "".join(at(72, 740 - 14 * n, line) for n, line in enumerate(lines))
    frame = "60 600 500 160 re S "
    assert document(page).text == document(page + frame).text == "\n".join(lines)


def test_words_cut_at_line_ends_are_joined() -> None:
    page = at(72, 740, "They wrote an inter-") + at(
        72, 726, "national treaty and a well-known text."
    )
    assert "international treaty and a well-known text" in document(page).text


def test_scanned_pages_of_a_mixed_file_are_named() -> None:
    scan = "q 612 0 0 792 0 0 cm /Im1 Do Q "
    found = document(at(72, 740, "A page of words."), scan, scan + at(72, 700, "stamp"))
    assert found.warnings == ("2 of 3 pages are images without a text layer: 2, 3",)
    (item,) = read_bytes(pdf(contents=[scan]), name="a.pdf", limits=LIMITS)
    assert isinstance(item, ReadFailure)
    assert item.error.code == "image_only"


def test_a_bitmap_of_35000_pixels_costs_no_memory(shared_data: Path) -> None:
    with IsolatedReader(memory_bytes=400 * 1024**2) as reader:
        (item,) = reader.read(shared_data / "pdfs" / "huge_bitmap_35000px.pdf", limits=LIMITS)
    assert isinstance(item, ReadFailure)
    assert item.error.code == "image_only"


@pytest.mark.parametrize(
    ("page", "line"),
    [
        (14, "국내: 서울, 부산, 제주 | 일비(1일): 34,000원 | 숙박비 한도(1박): 118,000원"),
        (14, "조부모·외조부모의 사망 | 휴가 일수: 3일 | 경조금: 230,000원"),
        (14, "물류관리사 | 월 지급액: 55,000원"),
        (12, "강등 | 내용: 직급을 한 단계 낮춘다. | 승진 제한 기간: 21개월"),
    ],
)
def test_rows_of_the_work_rules_stand_alone(page: int, line: str) -> None:
    (found,) = read(DEMO, limits=LIMITS)
    assert isinstance(found, ReadDocument)
    place = found.pages[page - 1]
    assert line in found.text[place.start : place.end].split("\n")


def test_merged_cells_of_a_real_table(shared_data: Path) -> None:
    (found,) = read(shared_data / "pdfs" / "ko_kbo_rules_table_text.pdf", limits=LIMITS)
    assert isinstance(found, ReadDocument)
    assert "\n5월 | 토요일: 17:00 | 일요일/공휴일: 14:00 | 평일: 18:30\n" in found.text
    assert "\n6월 | 토요일: 17:00 | 평일: 18:30\n" in found.text
    assert "\n7월 | 토요일: 18:00 | 일요일/공휴일: 17:00 | 평일: 18:30\n" in found.text


def test_a_long_report_keeps_its_statements(shared_data: Path) -> None:
    (found,) = read(shared_data / "pdfs" / "en_10k_151p.pdf", limits=LIMITS)
    assert isinstance(found, ReadDocument)
    assert "Professional services | 2022: 45,843 | 2021 (in thousands): 25,851" in found.text
    assert "Deferred revenue, current | 2022: $ 48,854 | 2021: $ 72,263" in found.text


def test_quotations_are_found_on_their_page() -> None:
    found = locate(DEMO, page=14, quote="형제자매의 결혼 | 휴가 일수: 1일 | 경조금: 120,000원")
    assert (round(found.width), round(found.height)) == (595, 842)
    name, days, amount = found.rectangles
    assert name.left < name.right < days.left < days.right < amount.left
    assert abs(name.bottom - amount.bottom) < 2
    two_lines = locate(DEMO, page=12, quote="제68조 (포상)\n① 회사는 분기마다 우수 제안 3건을")
    assert [box.bottom for box in two_lines.rectangles] == sorted(
        (box.bottom for box in two_lines.rectangles), reverse=True
    )
    assert len(two_lines.rectangles) == 2
    assert locate(DEMO, page=14, quote="never said").rectangles == ()


@pytest.mark.parametrize("page", [0, 15])
def test_a_page_that_is_not_there_is_refused(page: int, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="14 pages"):
        locate(DEMO, page=page, quote="x")
    with pytest.raises(ReadError, match="could not be opened"):
        locate(tmp_path / "absent.pdf", page=1, quote="x")

"""Plain text, Markdown and HTML, in every encoding we accept, through ``read_bytes``."""

from __future__ import annotations

import codecs

import pytest
from tests.documents.readers.documents import DATA

from ondol.core.types import ReadDocument
from ondol.documents.readers import ReadFailure, ReadItem, ReadLimits, read, read_bytes

LIMITS = ReadLimits()
KOREAN = "근로자는 연차 유급휴가를 사용할 수 있다. 회사는 이를 보장하여야 한다.\n휴가는 15일이다.\n"


def only(data: bytes, name: str, limits: ReadLimits = LIMITS) -> ReadItem:
    (item,) = read_bytes(data, name=name, limits=limits)
    return item


def document(data: bytes, name: str = "a.txt") -> ReadDocument:
    item = only(data, name)
    assert isinstance(item, ReadDocument), item
    return item


def code(data: bytes, name: str, limits: ReadLimits = LIMITS) -> str:
    item = only(data, name, limits)
    assert isinstance(item, ReadFailure), item
    assert name in item.error.message
    assert item.error.hint
    assert item.source == name
    return item.error.code


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "euc-kr", "cp949"],
)
def test_korean_reads_right_in_every_encoding(encoding: str) -> None:
    assert document(KOREAN.encode(encoding)).text == KOREAN


def test_a_few_korean_words_in_euc_kr() -> None:
    assert document("휴가 규정".encode("euc-kr")).text == "휴가 규정"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 5, "euc-jp"),
        ("Съешь ещё этих мягких французских булок, да выпей чаю. " * 5, "koi8-r"),
        ("我们在北京工作，他们在上海学习。今天天气很好，我想去公园散步。" * 5, "gb2312"),
    ],
)
def test_other_encodings_are_refused_not_stored_as_noise(text: str, encoding: str) -> None:
    assert code(text.encode(encoding), "a.txt") == "bad_encoding"


def test_western_quotes_read_with_a_warning() -> None:
    found = document("It’s a café that serves good coffee. ".encode("cp1252") * 20)
    assert found.text.startswith("It’s a café that")
    assert "Windows-1252" in found.warnings[0]


def test_a_broken_byte_order_mark_says_where() -> None:
    item = only(codecs.BOM_UTF8 + b"ok \xff\xff", "a.txt")
    assert isinstance(item, ReadFailure)
    assert item.error.code == "bad_encoding"
    assert "byte" in item.error.message


def test_stray_nul_bytes_go_and_binary_is_refused() -> None:
    assert document(b"one\x00 two\x00" + b" words" * 50).text.startswith("one two words")
    assert code(bytes(range(256)) * 40, "a.txt") == "wrong_type"
    assert code(b"a\x00\x00\x00" * 400, "a.txt") == "wrong_type"


def test_a_ten_megabyte_line_reads() -> None:
    assert len(document(b"word " * 2_000_000).text) == 10_000_000


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"", "a.txt", "empty"),
        (b" \n\t ", "a.md", "empty"),
        (b"<html><script>x</script></html>", "a.html", "empty"),
        (b"\xff\xd8\xff\xe0 JFIF", "photo.jpg", "unsupported"),
        (b"\xff\xd8\xff\xe0 JFIF", "a.txt", "wrong_type"),
        (b"\x89PNG\r\n\x1a\n....", "a.pdf", "wrong_type"),
        (b"just words", "a.pdf", "wrong_type"),
        (b"<!doctype html><html></html>", "a.pdf", "wrong_type"),
        (b"\xfe\x01\x9c garbage", "a.pdf", "damaged"),
        (b"PK\x03\x04....word/document.xml", "a.docx", "damaged"),
        (b"PK\x03\x04....xl/workbook.xml", "a.xlsx", "unsupported"),
        (b"PK\x03\x04....application/hwp+zip", "a.hwpx", "damaged"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.hwp", "damaged"),
        (b"\x00\x01\x02\x00\x00\x07" * 9, "a.bin", "unsupported"),
    ],
)  # fmt: skip
def test_refusals_name_the_input_and_the_remedy(data: bytes, name: str, expected: str) -> None:
    assert code(data, name) == expected


def test_unsupported_lists_what_is_read() -> None:
    item = only(b"\x89PNG\r\n\x1a\n....", "scan.png")
    assert isinstance(item, ReadFailure)
    assert "a PNG image" in item.error.message
    assert ".pdf" in item.error.message


def test_limits_in_bytes_and_characters() -> None:
    assert code(b"x" * 11, "a.txt", ReadLimits(max_file_bytes=10)) == "too_large"
    for name in ("a.txt", "a.md", "a.html"):
        assert code(b"word " * 20, name, ReadLimits(max_chars=50)) == "too_large"


def test_an_unknown_extension_is_read_by_its_content() -> None:
    assert document(b"# words", "NOTES").media_type == "text/plain"
    assert document(b"<!DOCTYPE html><p>Hi", "page").media_type == "text/html"


def test_text_is_stored_normalised_and_titled_by_name() -> None:
    found = document("a\r\nb\x00\u1112\u1161\u11ab".encode(), "notes/my file.txt")
    assert (found.text, found.title, found.pages) == ("a\nb한", "my file", ())


def test_markdown_is_stored_as_written() -> None:
    (found,) = read(DATA / "guide.md", limits=LIMITS)
    assert isinstance(found, ReadDocument)
    assert found.text == (DATA / "guide.md").read_text("utf-8")
    assert (found.title, found.media_type) == ("Field guide", "text/markdown")
    assert document(b"intro\n\n# First #\n", "a.md").title == "First"
    assert document(b"First\n=====\n", "a.md").title == "First"
    assert document(b"no heading", "readme.md").title == "readme"


def test_html_gives_what_is_seen() -> None:
    (found,) = read(DATA / "page.html", limits=LIMITS)
    assert isinstance(found, ReadDocument)
    assert found.title == "Warm floors"
    assert found.text == (
        "# Ondol\n\nA floor that one small fire keeps warm.\n\n- One\n- Two\n\na | 1 |\n\n"
        "x  =  1\ny"
    )


def test_html_tables_of_data_are_rows_and_those_of_layout_are_text() -> None:
    page = (
        b"<table><caption>Fees</caption><tr><th>Place<th>Day<th>Night</tr>"
        b"<tr><td rowspan=2>North<td>1<td>2</tr><tr><td>3<td>4</tr></table>"
        b"<table><tr><td><h2>Left</h2>words<td>more</tr><tr><td>a<td>b</tr></table>"
        b"<table><tr><td>outer<td><table><tr><td>k<td>v</tr><tr><td>l<td>w</tr></table></tr>"
        b"<tr><td>c<td>d</tr></table>"
    )
    lines = [line.strip() for line in document(page, "a.html").text.split("\n") if line]
    assert lines == [
        "Fees", "Place | Day | Night", "North | Day: 1 | Night: 2", "North | Day: 3 | Night: 4",
        "## Left", "words | more |", "a | b |", "outer |", "k | v", "l | w", "|", "c | d |",
    ]  # fmt: skip


def test_html_in_its_declared_encoding() -> None:
    page = "<meta charset='euc-kr'><title>규정</title><p>휴가는 15일이다."
    found = document(page.encode("euc-kr"), "a.html")
    assert (found.title, found.text) == ("규정", "휴가는 15일이다.")


def test_html_nested_beyond_the_stack() -> None:
    assert document(b"<div>" * 5_000 + b"deep", "a.html").text == "deep"
    assert document(b"<b>x</b>" * 50_000, "a.html").text == "x" * 50_000


def test_a_missing_file_and_a_folder_are_failures() -> None:
    for path in (DATA / "absent.txt", DATA):
        (item,) = read(path, limits=LIMITS)
        assert isinstance(item, ReadFailure)
        assert item.error.code == "unreadable"
        assert str(path) in item.error.message

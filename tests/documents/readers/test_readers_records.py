"""JSON Lines, JSON, CSV and TSV: each record a document, each bad one a failure of its own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.documents.readers.documents import DATA

from ondol.core.types import ReadDocument
from ondol.documents.readers import ReadFailure, ReadItem, ReadLimits, read, read_bytes

LIMITS = ReadLimits()
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "id", "_id", "title", "metadata", "x\ud800"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def items(data: str | bytes, name: str = "r.jsonl", limits: ReadLimits = LIMITS) -> list[ReadItem]:
    raw = data.encode() if isinstance(data, str) else data
    return list(read_bytes(raw, name=name, limits=limits))


def test_beir_records_read_as_they_are() -> None:
    (found,) = items(
        '{"_id": "fire-1", "title": "제목", "text": "본문이다.", "metadata": {"law": ["소방"]}}\n'
    )
    assert found == ReadDocument(
        source="r.jsonl#fire-1",
        title="제목",
        text="본문이다.",
        metadata={"law": ["소방"]},
        media_type="application/json",
    )


@pytest.mark.parametrize("field", ["text", "content", "body", "review", "Text"])
def test_text_fields_and_other_fields_as_metadata(field: str) -> None:
    (found,) = items(json.dumps({"id": 7, field: "words", "stars": 5, "metadata": {"a": 1}}))
    assert isinstance(found, ReadDocument)
    assert (found.source, found.text) == ("r.jsonl#7", "words")
    assert found.metadata == {"stars": 5, "a": 1}


def test_bad_lines_fail_alone_and_name_their_line() -> None:
    lines = [
        '{"text": "one"}', "{broken", "[1]", "", '{"title": "no text"}', '{"text": 5}',
        '{"text": " "}', '{"text": NaN}', '{"_id": "a", "text": "x"}', '{"_id": "a", "text": "y"}',
        "[" * 100_000, '{"text": "last"}',
    ]  # fmt: skip
    found = items("\n".join(lines))
    good = [item.source for item in found if isinstance(item, ReadDocument)]
    bad = [(item.source, item.error.code) for item in found if isinstance(item, ReadFailure)]
    assert good == ["r.jsonl#1", "r.jsonl#a", "r.jsonl#12"]
    assert bad == [
        ("r.jsonl#2", "bad_record"), ("r.jsonl#3", "bad_record"), ("r.jsonl#5", "bad_record"),
        ("r.jsonl#6", "bad_record"), ("r.jsonl#7", "empty"), ("r.jsonl#8", "bad_record"),
        ("r.jsonl#10", "bad_record"), ("r.jsonl#11", "bad_record"),
    ]  # fmt: skip
    for item in found:
        if isinstance(item, ReadFailure):
            assert "'r.jsonl' line " in item.error.message
            assert item.error.hint


def test_surrogates_and_nul_escapes_become_storable() -> None:
    (found,) = items(r'{"_id": "\ud800", "text": "a\ud83d b\u0000", "k\udfff": ["\ud800"]}')
    assert isinstance(found, ReadDocument)
    assert (found.source, found.text) == ("r.jsonl#\ufffd", "a\ufffd b")
    assert found.metadata == {"k\ufffd": ["\ufffd"]}


def test_line_separators_inside_strings_do_not_cut_a_record() -> None:
    (found,) = items('{"text": "a\u2028b"}')
    assert isinstance(found, ReadDocument)
    assert found.text == "a\nb"


def test_arrays_objects_strings_and_lines_in_json_files() -> None:
    assert len(items('[{"text": "a"}, "b"]', "r.json")) == 2
    assert len(items('{"text": "a"}', "r.json")) == 1
    assert len(items('{"text": "a"}\n{"text": "b"}\n', "r.json")) == 2
    assert len(items('[\n{"text": "a"},\n{"text": "b"}\n]', "r.jsonl")) == 2
    for data in ("[]", "\n\n"):
        (item,) = items(data)
        assert isinstance(item, ReadFailure)
        assert item.error.code == "empty"
    (item,) = items('{"text": ', "r.json")
    assert isinstance(item, ReadFailure)
    assert item.error.code == "damaged"


def test_csv_with_quotes_and_any_case() -> None:
    found = list(read(DATA / "reviews.csv", limits=LIMITS))
    assert all(isinstance(item, ReadDocument) for item in found)
    first = found[0]
    assert isinstance(first, ReadDocument)
    assert first.source.endswith("reviews.csv#r1")
    assert first.text == "국물이 진하고, 양도 많아요."
    assert first.metadata == {"stars": "5"}


def test_csv_separators_encodings_and_bad_rows() -> None:
    assert len(items("text\tx\na\t1\nb\t2\n", "r.tsv")) == 2
    assert len(items("text;x\na;1\n", "r.csv")) == 1
    (korean,) = items("리뷰,별점\n맛있어요 정말 좋습니다,5\n".encode("cp949"), "r.csv")
    assert isinstance(korean, ReadDocument)
    assert korean.text == "맛있어요 정말 좋습니다"
    good, bad, last = items("id,text\n1,a\n2,b,c,d\n3,c\n", "r.csv")
    assert isinstance(good, ReadDocument)
    assert isinstance(last, ReadDocument)
    assert isinstance(bad, ReadFailure)
    assert "row 2" in bad.error.message


def test_csv_without_a_text_column_is_one_table_while_it_is_short() -> None:
    (found,) = items("Cups,,\nTeam,Place,Cups won\nBlues,STL,1\nFlyers 🥅,PHI,2\n", "cups.csv")
    assert isinstance(found, ReadDocument)
    assert found.text.split("\n") == [
        "Cups |",
        "Team | Place | Cups won",
        "Blues | Place: STL | Cups won: 1",
        "Flyers 🥅 | Place: PHI | Cups won: 2",
    ]
    assert found.title == "cups"
    assert found.warnings == ("read as one table of 4 rows: no column is called text",)
    (long,) = items("name,stars\n" + "a,1\n" * 2000, "r.csv")
    (alone,) = items("name\na\nb\n", "r.csv")
    for refused, first in ((long, "name, stars"), (alone, "name")):
        assert isinstance(refused, ReadFailure)
        assert first in refused.error.message


def test_a_record_over_the_limit_fails_alone() -> None:
    found = items('{"text": "0123456789"}\n{"text": "ok"}', limits=ReadLimits(max_chars=5))
    assert [type(item) for item in found] == [ReadFailure, ReadDocument]


@given(st.lists(JSON_VALUES, max_size=4))
def test_any_json_gives_storable_documents_or_failures(values: list[object]) -> None:
    data = "\n".join(json.dumps(value) for value in values)
    found = items(data)
    assert found
    for item in found:
        item.source.encode()
        if isinstance(item, ReadDocument):
            json.dumps(item.metadata, ensure_ascii=False, allow_nan=False).encode()
            assert item.text.strip()


@given(
    st.binary(max_size=300),
    st.sampled_from(["r.jsonl", "r.json", "r.csv", "r.txt", "r.md", "r.html", "r.bin", "r"]),
)
def test_any_bytes_give_items_and_never_an_exception(data: bytes, name: str) -> None:
    assert items(data, name)

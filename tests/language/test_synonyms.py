from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.errors import InvalidInput, NotFound
from ondol.language.synonyms import Synonyms, law_groups, read_synonyms

GROUPS = [
    ("손해배상", "배상금"),
    ("개인정보 보호법", "개보법"),
    ("AI", "인공지능"),
    ("전세", "임차"),
]


@pytest.mark.parametrize(
    ("query", "others"),
    [
        ("손해배상을 청구", ["배상금"]),
        ("손해 배상의 범위", ["배상금"]),
        ("손해배상금의 범위", ["배상금"]),
        ("개인정보보호법 위반", ["개보법"]),
        ("개인정보 보호 법과", ["개보법"]),
        ("개보법상 동의", ["개인정보 보호법"]),
        (unicodedata.normalize("NFD", "인공지능은"), ["AI"]),
        ("ＡＩ를", ["인공지능"]),
        ("ai 학습과 전세", ["인공지능", "임차"]),
        ("전세계 무역", []),
        ("MAIL", []),
        ("AI2", []),
        ("", []),
    ],
)
def test_a_member_asks_for_the_others(query: str, others: list[str]) -> None:
    assert Synonyms(GROUPS).others(query) == others


def test_laws_are_groups_by_the_names_that_say_law() -> None:
    known = Synonyms(law_groups(), to_first=True)
    assert known.others("근기법 위반") == ["근로기준법"]
    assert known.others("개보법과 개인정보법의 차이") == ["개인정보 보호법"]
    assert known.others("근로기준법의 휴가") == []
    assert known.others("근기 있는 사람") == []


def test_files_of_either_form(tmp_path: Path) -> None:
    rows = tmp_path / "s.csv"
    rows.write_text("# 뜻이 같은 말\n손해배상, 배상금\n\nAI,인공지능\n", "utf-8")
    assert read_synonyms(rows) == (("손해배상", "배상금"), ("AI", "인공지능"))
    toml = tmp_path / "s.toml"
    toml.write_text('groups = [["AI", "인공지능"]]\n"근로기준법" = ["노동법전"]\n', "utf-8")
    assert read_synonyms(toml) == (("AI", "인공지능"), ("근로기준법", "노동법전"))
    rows.write_text("", "utf-8")
    assert read_synonyms(rows) == ()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("s.csv", "혼자\n", "has 1 words"),
        ("s.csv", "손해배상,법\n", "'법' is no word"),
        ("s.toml", "groups = [", "not valid TOML"),
        ("s.toml", "groups = [[1, 2]]", "no list of words"),
        ("s.toml", 'groups = "x"', "no list of at most"),
        ("s.csv", "\ufffe", "is no word|has 1"),
    ],
)
def test_what_is_no_group_is_told(tmp_path: Path, name: str, text: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidInput, match=said):
        read_synonyms(file)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_synonyms(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_synonyms(tmp_path / "b.csv")
    (tmp_path / "l.csv").write_bytes(b"a" * 1_000_001)
    with pytest.raises(InvalidInput, match="larger"):
        read_synonyms(tmp_path / "l.csv")


@given(st.text(alphabet="손해배상 금AI인공지능전세계을의x1", max_size=60))
def test_any_query_is_answered(query: str) -> None:
    members = {member for group in GROUPS for member in group}
    assert set(Synonyms(GROUPS).others(query)) <= members

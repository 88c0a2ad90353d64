from __future__ import annotations

from pathlib import Path

import pytest

from ondol.core.errors import InvalidInput, NotFound
from ondol.packs.legal.law_names import given_names, law_names, read_law_names, squeezed


def test_short_names_lead_to_full_ones_and_no_full_name_leads_on() -> None:
    names = law_names()
    assert names["민"] == "민법"
    assert names["근기법"] == "근로기준법"
    assert names["고평법"] == "남녀고용평등과일가정양립지원에관한법률"
    assert not set(names) & set(names.values())


def test_blanks_and_middle_dots_do_not_count() -> None:
    assert squeezed("남녀고용평등과 일ㆍ가정 양립") == squeezed("남녀고용평등과 일·가정양립")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "names.toml"
    file.write_text('"취업 규칙" = ["우리규정", "사규"]\n', "utf-8")
    assert read_law_names(file) == {"우리규정": "취업규칙", "사규": "취업규칙"}


@pytest.mark.parametrize("text", ['"취업규칙" = "사규"\n', "취업규칙 = [", '"취업규칙" = [1]\n'])
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "names.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidInput, match=r"names\.toml"):
        read_law_names(file)
    with pytest.raises(NotFound):
        read_law_names(tmp_path / "absent.toml")


def test_names_in_metadata_pass_over_what_is_no_text() -> None:
    assert given_names({"사규": "취업 규칙", "x": 3}) == {"사규": "취업규칙"}
    assert given_names(["사규"]) == {}

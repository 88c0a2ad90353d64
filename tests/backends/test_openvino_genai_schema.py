"""Patterns as OpenVINO GenAI's grammar compiler reads them right: the same characters, in other pieces."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.backends.openvino_genai_schema import with_split_ranges
from ondol.core.errors import InvalidInput

_RANGE = re.compile(r"(.)-(.)")
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\\[]^-")


def split(pattern: str) -> str:
    schema = {"type": "string", "pattern": pattern}
    found: str = with_split_ranges(schema, param="schema")["pattern"]
    return found


def test_hangul_is_split_where_its_lead_byte_changes() -> None:
    assert split("^[가-힣a-z]+$") == "^[가-꿿뀀-뿿쀀-쿿퀀-힣a-z]+$"


@given(characters, characters, characters)
def test_split_ranges_hold_the_same_characters(first: str, last: str, asked: str) -> None:
    first, last = sorted((first, last))
    found = split(f"^[{first}-{last}]$")
    json.dumps(found, ensure_ascii=False).encode()
    assert bool(re.match(found, asked)) == (first <= asked <= last)
    for a, b in _RANGE.findall(found) if last > "\x7f" else ():
        assert len(a.encode()) == len(b.encode())
        assert len(a.encode()) < 3 or a.encode()[0] == b.encode()[0]


def test_only_patterns_are_touched_and_only_within_classes() -> None:
    schema = {
        "properties": {"pattern": {"enum": ["[가-힣]"], "pattern": "가-힣\\[가-힣[ㄱ-ㅎ]"}},
        "default": {"pattern": "[가-힣]"},
    }
    assert with_split_ranges(schema, param="schema") == schema


def test_a_class_that_excludes_other_scripts_is_refused_because_it_would_not_hold() -> None:
    with pytest.raises(InvalidInput, match="cannot enforce") as caught:
        split("^[^가-힣]+$")
    assert "allowed" in caught.value.hint
    assert split('^[^"\\\\]+$') == '^[^"\\\\]+$'

"""What a generator answered: words bounded before, cut texts made whole after."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ondol.tasks.task_answers import filled, parsed

ANSWER = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 4, "maxLength": 40},
        "evidence": {"type": "array", "items": {"enum": ["$markers"]}, "minItems": 1},
    },
    "required": ["text", "evidence"],
    "additionalProperties": False,
}


def schema_of(language: str) -> dict[str, Any]:
    found: dict[str, Any] = filled(ANSWER, ["r1", "r2"], language=language)
    return found


def read(text: str, language: str) -> str | None:
    said = json.dumps({"text": text, "evidence": ["r1"]}, ensure_ascii=False)
    value = parsed(said, schema_of(language)).value or {}
    found: str | None = value.get("text")
    return found


def test_text_is_bound_to_words_of_its_language() -> None:
    pattern = schema_of("en")["properties"]["text"]["pattern"]
    assert re.search(pattern, "The soup is hot, and rich.")
    assert not re.search(pattern, "The soup: hot")
    assert not re.search(pattern, "one two three four five six seven eight nine")
    seventh = "one two three four five six "
    assert re.search(pattern, seventh + "seven")
    assert not re.search(pattern, seventh + "sevenalltogether")  # no running on without blanks
    assert not re.search(schema_of("ko")["properties"]["text"]["pattern"], "국물이 good 좋아요")


@pytest.mark.parametrize(
    ("language", "said", "kept"),
    [
        ("en", "The soup is hot.", "The soup is hot."),
        ("en", "Great soup and noodles, but the bill", "Great soup and noodles"),
        ("en", "The soup was hot and the bill", "The soup was hot and the"),
        ("ko", "국물이 진하고 맛있어요", "국물이 진하고 맛있어요"),
        (
            "ko",
            "국물이 진하고 양도 많고 맛있어요. 그리고 배달도 정말 빨라서 늘",
            "국물이 진하고 양도 많고 맛있어요.",
        ),
    ],
)
def test_text_that_reached_its_bound_ends_where_it_is_whole(
    language: str, said: str, kept: str
) -> None:
    assert read(said, language) == kept


def test_what_does_not_fit_takes_nothing_else_with_it() -> None:
    part = schema_of("en")
    schema = {
        "type": "object",
        "properties": {"a": part, "b": part},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    good = {"text": "The soup is hot", "evidence": ["r2"]}
    said = json.dumps({"a": good, "b": {"text": "no", "evidence": ["r9"]}})
    found = parsed(said, schema)
    assert found.value == {"a": good}
    assert found.left_out >= 1
    assert not found.cut


def test_an_answer_cut_off_counts_as_far_as_it_is_whole() -> None:
    found = parsed('{"text": "The soup is hot", "evidence": ["r1", "r', schema_of("en"))
    assert found.value == {"text": "The soup is hot", "evidence": ["r1"]}
    assert found.cut
    assert parsed("no JSON at all", schema_of("en")).value is None

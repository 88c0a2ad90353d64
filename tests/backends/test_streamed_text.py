"""Streamed text never shows half a character or a part of a stop text."""

from __future__ import annotations

import pytest

from ondol.backends.openvino_genai_schema import check_types
from ondol.backends.streamed_text import StreamedText
from ondol.core.errors import InvalidInput


def decode(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


def stream(data: bytes, *, step: int = 1, stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    text = StreamedText(decode, stops)
    pieces = []
    for start in range(0, len(data), step):
        pieces.append(text.feed(list(data[start : start + step])))
        if text.stopped:
            break
    return [piece for piece in [*pieces, text.rest()] if piece], text.stopped


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_characters_come_whole(step: int) -> None:
    sentence = "온돌은 🔥 warm"
    pieces, stopped = stream(sentence.encode(), step=step)

    assert "".join(pieces) == sentence
    assert not any("\ufffd" in piece for piece in pieces)
    assert not stopped


def test_half_a_character_at_the_end_is_dropped() -> None:
    assert stream("가나".encode()[:-1])[0] == ["가"]


@pytest.mark.parametrize("step", [1, 2, 7])
@pytest.mark.parametrize(
    ("text", "stops", "shown", "stopped"),
    [
        ("one two three", ("two",), "one ", True),
        ("one twelve", ("two",), "one twelve", False),
        ("aaab!", ("aab",), "a", True),
        ("x END y", ("y", "END"), "x ", True),
        ("ends in tw", ("two",), "ends in tw", False),
    ],
)
def test_stops_end_the_text_before_them(
    text: str, stops: tuple[str, ...], shown: str, stopped: bool, step: int
) -> None:
    pieces, was_stopped = stream(text.encode(), step=step, stops=stops)

    assert ("".join(pieces), was_stopped) == (shown, stopped)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"type": "array", "items": {"type": ["string", "nul"]}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}},
        {"$ref": "https://example.org/schema"},
    ],
)
def test_schemas_that_would_end_the_compiler_are_refused(schema: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as error:
        check_types(schema, param="response_format")

    assert error.value.param == "response_format"


def test_properties_and_values_that_look_like_types_pass() -> None:
    check_types(
        {
            "type": "object",
            "properties": {"type": {"enum": [{"type": "odd"}]}, "next": {"$ref": "#"}},
            "$defs": {"b": {"const": {"$ref": "nowhere"}}},
        },
        param="response_format",
    )

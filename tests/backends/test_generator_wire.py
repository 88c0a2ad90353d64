"""What the chat protocol refuses before any server sees it."""

from __future__ import annotations

from typing import Any

import pytest

from ondol.backends.json_grammar import MAX_DEPTH
from ondol.backends.openai_wire import chat_body
from ondol.core.errors import InvalidInput
from ondol.core.types import GenerationRequest, Message


def body_of(**kwargs: Any) -> dict[str, Any]:
    return chat_body(GenerationRequest([Message("user", "x")], **kwargs))


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("stop", ("",)),
    ],
)
def test_senseless_parameters_are_named(param: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=param) as error:
        body_of(**{param: value})

    assert error.value.param == param
    assert error.value.hint


def test_nan_is_not_a_temperature() -> None:
    with pytest.raises(InvalidInput, match="temperature"):
        body_of(temperature=float("nan"))


def test_lone_surrogates_are_named_by_message() -> None:
    messages = [Message("system", "fine"), Message("user", "bad \ud800")]
    with pytest.raises(InvalidInput, match="character 4") as error:
        chat_body(GenerationRequest(messages))

    assert error.value.param == "messages[1]"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def tool(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize("depth", [MAX_DEPTH, 100_000])
def test_nesting_has_a_bound_wherever_it_stands(depth: int) -> None:
    deep = nested(depth)
    requests: dict[str, dict[str, Any]] = {
        "response_format": {"json_schema": deep},
        "tools[0]": {"tools": [tool(deep)]},
        "tool_choice": {"tool_choice": deep},
    }
    for param, kwargs in requests.items():
        with pytest.raises(InvalidInput, match="nested deeper") as error:
            body_of(**kwargs)
        assert error.value.param == param
    with pytest.raises(InvalidInput, match="nested deeper"):
        chat_body(GenerationRequest([Message("assistant", "", tool_calls=[deep])]))


def test_ordinary_nesting_passes() -> None:
    assert body_of(json_schema=nested(MAX_DEPTH - 2))["response_format"]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "items": {}, "minItems": 5, "maxItems": 2}, "minItems 5 and maxItems 2"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "minLength 2"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum 5"),
        ({"type": "string", "maxLength": 2000}, "maxLength 2000, the limit is 1000"),
        ({"type": "string", "pattern": "^(?=a)b$"}, "look-around"),
        ({"type": "string", "pattern": "^a{2,1}$"}, "does not compile"),
        ({"type": "string", "pattern": "^(a$"}, "does not compile"),
        ({"type": "string", "pattern": "a" * 1001}, "1001 characters, the limit is 1000"),
        ({"type": "string", "pattern": "^a{99999999999}$"}, "in the JSON schema"),
        ({"type": "string", "pattern": "^a{0,2000}$"}, "2000 times, the limit is 1000"),
        ({"type": "string", "pattern": "^((ab{50}){50}){2}$"}, "5000 times"),
        ({"enum": ["x" * 70_000]}, "characters"),
        ({"enum": list(range(2000))}, "parts, the limit is 1000"),
        ({"type": "object", "properties": {"a" * 40_000: {}}}, "characters"),
    ],
)
def test_schemas_that_would_hang_or_be_dropped_are_refused(
    schema: dict[str, Any], said: str
) -> None:
    requests: dict[str, dict[str, Any]] = {
        "response_format": {"json_schema": {"type": "object", "properties": {"p": schema}}},
        "tools[0]": {"tools": [tool(schema)]},
    }
    for param, kwargs in requests.items():
        with pytest.raises(InvalidInput) as error:
            body_of(**kwargs)
        assert said in error.value.message
        assert error.value.param == param


@pytest.mark.parametrize(
    "pattern", ["^[0-9]{4}-[0-9]{2}$", "^(?:a|b){1,3}c{2}$", r"^\{5000\}[{9999}]$", "^a{2,}b*$"]
)
def test_ordinary_patterns_reach_the_generator(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}

    assert body_of(json_schema=schema)["response_format"]["json_schema"]["schema"] == schema


def test_properties_may_be_called_like_keywords() -> None:
    names = ["minimum", "maximum", "minItems", "maxItems", "pattern", "enum"]
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}

    assert body_of(json_schema=schema)["response_format"]["json_schema"]["schema"] == schema


@pytest.mark.parametrize("bad", [1, "f", {}, {"function": {}}, {"function": {"name": 3}}])
def test_a_tool_without_a_name_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInput, match=r"tools\[0\]"):
        body_of(tools=[bad])


def test_nothing_optional_is_sent_unasked() -> None:
    assert body_of(max_tokens=3) == {
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 3,
        "temperature": 0.0,
        "top_p": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

"""Bodies that are malformed, hostile or of the wrong kind get a 400 that says why; never a 500."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.api.conftest import Served
from tests.api.stage import error_of

from ondol.server.openai_schemas import ChatBody
from ondol.server.schemas import AskBody, RequestBody, RerankBody, TeiRerankBody

JSON = {"content-type": "application/json"}
ENDPOINTS = [
    "/v1/embeddings",
    "/v1/chat/completions",
    "/v1/rerank",
    "/rerank",
    "/v1/collections",
    "/v1/collections/c/search",
    "/v1/collections/c/ask",
    "/v1/models/reload",
]
BODIES = {
    "truncated": b'{"model": "x", ',
    "not utf-8": b'{"model": "\xff\xfe"}',
    "lone surrogate": rb'{"model": "\ud800"}',
    "encoded surrogate": b'{"model": "\xed\xa0\x80"}',
    "nan": b'{"model": NaN}',
    "infinity": b'{"model": -Infinity}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "huge number": b'{"model": ' + b"9" * 10_000 + b"}",
    "byte order mark": "\ufeff{}".encode(),
    "empty": b"",
    "blank": b"  \n",
}
WRONG_KINDS = [b"null", b"[]", b"1", b'"text"', b"true"]


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_malformed_json_names_the_trouble(client: httpx.AsyncClient, path: str) -> None:
    for name, body in BODIES.items():
        response = await client.post(path, content=body, headers=JSON)
        assert response.status_code == 400, name
        assert error_of(response)["code"] in {"malformed_json", "missing_body"}, name
    for body in WRONG_KINDS:
        response = await client.post(path, content=body, headers=JSON)
        assert response.status_code == 400, body
        assert error_of(response)["hint"]


@pytest.mark.parametrize("path", [*ENDPOINTS, "/v1/collections/c/documents"])
async def test_wrong_content_type(client: httpx.AsyncClient, path: str) -> None:
    await client.post("/v1/collections", json={"name": "c"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = await client.post(path, content=b"{}", headers={"content-type": kind})
        assert response.status_code == 400
        assert error_of(response)["code"] == "wrong_content_type"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"model": "auto", "inputs": "x"}, "inputs"),
        ("/v1/embeddings", {"input": "x"}, "model"),
        ("/v1/embeddings", {"model": 5, "input": "x"}, "model"),
        ("/v1/embeddings", {"model": "auto", "input": {"a": 1}}, "input"),
        ("/v1/embeddings", {"model": "auto", "input": []}, "input"),
        ("/v1/embeddings", {"model": "auto", "input": ""}, "input[0]"),
        ("/v1/embeddings", {"model": "auto", "input": ["a", " "]}, "input[1]"),
        ("/v1/embeddings", {"model": "auto", "input": ["a", 5]}, "input[1]"),
        ("/v1/embeddings", {"model": "auto", "input": [1, "a"]}, "input[1]"),
        ("/v1/embeddings", {"model": "auto", "input": [[1], []]}, "input[1]"),
        ("/v1/embeddings", {"model": "auto", "input": [[1, -1]]}, "input[0][1]"),
        ("/v1/embeddings", {"model": "auto", "input": [True]}, "input[0]"),
        ("/v1/embeddings", {"model": "auto", "input": "x", "dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"model": "auto", "input": "x", "dimensions": 10**6}, "dimensions"),
        ("/v1/embeddings", {"model": "auto", "input": "x", "dimensions": "8"}, "dimensions"),
        (
            "/v1/embeddings",
            {"model": "auto", "input": "x", "encoding_format": "hex"},
            "encoding_format",
        ),
        ("/v1/embeddings", {"model": "auto", "input": "x", "input_type": "q"}, "input_type"),
        (
            "/v1/embeddings",
            {"model": "auto", "input": "x", "input_type": "query", "role": "query"},
            "role",
        ),
        ("/v1/chat/completions", {"model": "auto", "messages": []}, "messages"),
        ("/v1/chat/completions", {"model": "auto", "messages": "hi"}, "messages"),
        ("/v1/chat/completions", {"model": "auto"}, "messages"),
        ("/v1/rerank", {"query": "q", "documents": []}, "documents"),
        ("/v1/rerank", {"query": " ", "documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "q", "documents": [{"text": "a", "b": 1}]}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "max_chunks": 1}, "max_chunks"),
        ("/rerank", {"query": "q", "documents": ["a"]}, "documents"),
        ("/v1/collections", {"name": "a", "embedder": "x"}, "embedder"),
        ("/v1/collections", {"name": "../x"}, "collection"),
        ("/v1/collections/c/search", {"query": "q", "mode": "fast"}, "mode"),
        ("/v1/collections/c/search", {"query": "q", "topk": 3}, "topk"),
        ("/v1/collections/c/search", {"query": "q", "top_k": 1.5}, "top_k"),
        ("/v1/collections/c/ask", {"question": "q", "query": "q"}, "query"),
        ("/v1/collections/c/ask", {"question": "q", "language": "de"}, "language"),
        ("/v1/models/reload", {"component": "store"}, "component"),
    ],
)
async def test_a_wrong_field_is_named(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], param: str
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert error["hint"]


async def test_an_unknown_field_names_the_nearest_known_one(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/collections/c/search", json={"query": "q", "topk": 3})
    error = error_of(response)
    assert error["code"] == "unknown_field"
    assert error["hint"] == "did you mean 'top_k'?"


async def test_nul_is_taken_out_of_texts(client: httpx.AsyncClient) -> None:
    with_nul = await client.post("/v1/embeddings", json={"model": "auto", "input": "a\x00b c"})
    without = await client.post("/v1/embeddings", json={"model": "auto", "input": "ab c"})
    assert with_nul.status_code == 200
    assert with_nul.json()["data"] == without.json()["data"]


async def test_hostile_names_in_paths(client: httpx.AsyncClient) -> None:
    for name in ("%00", "..%2f..", "a%0ab", "%ff", "x" * 5000, "%ed%a0%80"):
        response = await client.get(f"/v1/collections/{name}")
        assert response.status_code in {400, 404}, name
        error_of(response)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    path=st.sampled_from([path for path in ENDPOINTS if "reload" not in path]),
    body=st.dictionaries(
        st.sampled_from(
            ["model", "input", "messages", "query", "documents", "texts", "name", "stop", "tools"]
        ),
        JSON_VALUES,
        max_size=4,
    ),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_json_at_all_makes_a_500(served: Served, path: str, body: dict[str, Any]) -> None:
    try:
        response = served.http.post(path, json=body)
    except (UnicodeEncodeError, ValueError):
        return
    assert response.status_code < 500, response.text


MANY = 200_000


@pytest.mark.parametrize(
    ("path", "kind", "body", "param"),
    [
        ("/v1/rerank", RerankBody, {"query": "q", "documents": [[]] * MANY}, "documents[0]"),
        ("/rerank", TeiRerankBody, {"query": "q", "texts": [["a", 1]] * MANY}, "texts[0]"),
        (
            "/v1/collections/c/ask",
            AskBody,
            {"question": "q", "history": [{"question": "a"}, *[{}] * MANY]},
            "history[1].question",
        ),
        (
            "/v1/collections/c/ask",
            AskBody,
            {"question": "q", "history": [{"question": "a", "titles": [0] * MANY}]},
            "history[0].titles[0]",
        ),
        (
            "/v1/chat/completions",
            ChatBody,
            {"model": "auto", "messages": [{}] * MANY},
            "messages[0].role",
        ),
        (
            "/v1/chat/completions",
            ChatBody,
            {"model": "auto", "messages": [], "stop": [None] * MANY},
            "stop[0]",
        ),
        (
            "/v1/chat/completions",
            ChatBody,
            {"model": "auto", "messages": [], "tools": [0] * MANY},
            "tools[0]",
        ),
        (
            "/v1/chat/completions",
            ChatBody,
            {"model": "auto", "messages": [{"role": "assistant", "tool_calls": [0] * MANY}]},
            "messages[0].tool_calls[0]",
        ),
    ],
)
async def test_a_list_of_wrong_items_ends_at_the_first(
    client: httpx.AsyncClient, path: str, kind: type[RequestBody], body: dict[str, Any], param: str
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() == 1

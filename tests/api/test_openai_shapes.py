"""OpenAI's fields: what changes nothing passes, what would change the answer is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.stage import error_of, make_app, running

from ondol.backends.fake_generator import FakeGenerator

HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hello there"}]}


async def chat(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**HELLO, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "metadata": {"a": "b"}, "n": 1, "logprobs": False, "top_logprobs": 0},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "store": False},
        {"service_tier": "auto", "parallel_tool_calls": True, "modalities": ["text"]},
        {"n": None, "stop": None, "tools": None, "temperature": None, "seed": None, "audio": None},
        {"temperature": 0, "top_p": 1, "seed": 7, "stop": "zzz", "max_tokens": 5},
    ],
)
async def test_what_changes_nothing_passes(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    response = await chat(client, **fields)
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "hello there"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n", True),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logit_bias", {"5": 1}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("functions", [{"name": "f"}]),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("reasoning_effort", "high"),
        ("store", True),
        ("parallel_tool_calls", False),
    ],
)
async def test_what_would_change_the_answer_is_refused_by_name(
    client: httpx.AsyncClient, field: str, value: Any
) -> None:
    response = await chat(client, **{field: value})
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == (field, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 10_000}, "max_tokens"),
        ({"max_completion_tokens": 10_000}, "max_completion_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "text", "strict": True}}, "strict"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0].name"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
        ),
    ],
)
async def test_values_out_of_range(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await chat(client, **fields)
    assert response.status_code == 400
    assert error_of(response)["param"] == param


async def test_roles_parts_and_a_reply_sent_back_reach_the_generator(tmp_path: Path) -> None:
    generator = FakeGenerator(tools=True)
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None, "audio": None},
        {"role": "tool", "content": "done", "tool_call_id": "1", "name": "f"},
    ]
    async with running(make_app(tmp_path, generator=generator)) as client:
        response = await chat(client, messages=messages, cache_salt="tenant", max_tokens=9)
        assert response.status_code == 200
    request = generator.order[0]
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "be brief"),
        ("user", "ab"),
        ("assistant", ""),
        ("tool", "done"),
    ]
    assert list(request.messages[2].tool_calls) == calls
    assert request.messages[3].tool_call_id == "1"
    assert (request.cache_salt, request.max_tokens, request.temperature) == ("tenant", 9, 0.0)


async def test_a_json_schema_constrains_the_answer(client: httpx.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    formats = [
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}},
        {"type": "json_object"},
        {"type": "text"},
    ]
    texts = []
    for response_format in formats:
        response = await chat(client, response_format=response_format)
        texts.append(response.json()["choices"][0]["message"]["content"])
    assert texts == ['{"a": 0}', "{}", "hello there"]


async def test_an_unknown_model_names_the_loaded_ones(client: httpx.AsyncClient) -> None:
    for path, body in [
        ("/v1/chat/completions", {**HELLO, "model": "gpt-4o"}),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"}),
        ("/v1/embeddings", {"model": "fake-generator", "input": "x"}),
        ("/v1/rerank", {"model": "rerank-v3", "query": "q", "documents": ["a"]}),
    ]:
        response = await client.post(path, json=body)
        assert response.status_code == 404
        error = error_of(response)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "fake-generator" in error["message"]
        assert "fake-" in error["hint"]


async def test_the_models_that_answer_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    by_role = {model["role"]: model for model in listed["data"]}
    assert set(by_role) == {"embedder", "reranker", "generator"}
    for model in listed["data"]:
        assert (model["object"], model["state"]) == ("model", "ready")
        one = await client.get(f"/v1/models/{model['id']}")
        assert model.items() <= one.json().items()
    known = (await client.get("/v1/models/multilingual-e5-small")).json()
    assert (known["state"], known["role"], known["dimensions"]) == ("not_loaded", "embedder", 384)
    missing = await client.get("/v1/models/gpt-4o")
    assert missing.status_code == 404
    assert error_of(missing)["code"] == "model_not_found"


async def test_rerank_in_both_shapes(client: httpx.AsyncClient) -> None:
    documents = ["a cat sat", "the price of gold", "oil price"]
    body = {"query": "oil price", "documents": documents}
    whole = (await client.post("/v1/rerank", json=body)).json()
    assert [result["index"] for result in whole["results"]][:1] == [2]
    scores = [result["relevance_score"] for result in whole["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert whole["results"][0]["document"] == {"text": "oil price"}
    assert whole["usage"]["total_tokens"] > 0
    short = await client.post(
        "/v1/rerank",
        json={
            **body,
            "documents": [{"text": text} for text in documents],
            "top_n": 1,
            "return_documents": False,
        },
    )
    assert short.json()["results"] == [{"index": 2, "relevance_score": scores[0]}]
    tei = {"query": "oil price", "texts": documents}
    plain = (await client.post("/rerank", json=tei)).json()
    assert [item["score"] for item in plain] == scores
    assert set(plain[0]) == {"index", "score"}
    raw = await client.post("/rerank", json={**tei, "raw_scores": True, "return_text": True})
    assert raw.json()[0]["text"] == "oil price"
    assert [item["score"] for item in raw.json()] != scores

"""Each limit has an error of its own that names field, figure, rule and remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from tests.api.stage import error_of, make_app, running

from ondol.core.errors import DeadlineExceeded, Overloaded, PayloadTooLarge
from ondol.server.request_gate import SHARE, BodyLimit

SMALL = {"max_body_bytes": 2000, "max_items": 3, "max_text_chars": 20}


async def in_pieces(size: int, *, piece: int = 100) -> AsyncIterator[bytes]:
    for _ in range(size // piece):
        yield b" " * piece


async def test_a_body_too_large_with_and_without_a_declared_length(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, server=SMALL)) as client:
        declared = await client.post("/v1/embeddings", content=b" " * 2001)
        streamed = await client.post("/v1/embeddings", content=in_pieces(2100))
        enormous = await client.post("/v1/embeddings", content=in_pieces(100_000))
        upload = await client.post(
            "/v1/collections/c/documents", files={"files": ("a.txt", b"x" * 3000)}
        )
    for response in (declared, streamed, enormous, upload):
        assert response.status_code == 413
        error = error_of(response)
        assert error["code"] == "payload_too_large"
        assert error["param"] == "body"
        assert "2000" in error["message"]
        assert "server.max_body_bytes" in error["hint"]


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("/v1/embeddings", {"model": "auto", "input": ["a"] * 4}, "input", "too_many_items"),
        ("/v1/embeddings", {"model": "auto", "input": [[1]] * 4}, "input", "too_many_items"),
        (
            "/v1/embeddings",
            {"model": "auto", "input": ["a", "b" * 21]},
            "input[1]",
            "text_too_long",
        ),
        ("/v1/rerank", {"query": "q", "documents": ["a"] * 4}, "documents", "too_many_items"),
        ("/v1/rerank", {"query": "q" * 21, "documents": ["a"]}, "query", "text_too_long"),
        ("/rerank", {"query": "q", "texts": ["a", "b" * 21]}, "texts[1]", "text_too_long"),
        (
            "/v1/chat/completions",
            {"model": "auto", "messages": [{"role": "user", "content": "x" * 21}]},
            "messages[0]",
            "text_too_long",
        ),
        ("/v1/collections/c/search", {"query": "q" * 21}, "query", "text_too_long"),
        ("/v1/collections/c/ask", {"question": "q" * 21}, "question", "text_too_long"),
        (
            "/v1/collections/c/documents",
            {"records": [{"text": "a"}] * 4},
            "records",
            "too_many_items",
        ),
        (
            "/v1/collections/c/documents",
            {"records": [{"text": "a"}, {"text": "b" * 21}]},
            "records[1].text",
            "text_too_long",
        ),
    ],
)
async def test_lists_and_texts(
    tmp_path: Path, path: str, body: dict[str, Any], param: str, code: str
) -> None:
    async with running(make_app(tmp_path, server=SMALL)) as client:
        await client.post("/v1/collections", json={"name": "c"})
        response = await client.post(path, json=body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == (param, code)
    assert "limit is" in error["message"]
    assert "server.max_" in error["hint"]


async def test_too_many_files(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, server=SMALL)) as client:
        await client.post("/v1/collections", json={"name": "c"})
        files = [("files", (f"{n}.txt", b"x")) for n in range(5)]
        response = await client.post("/v1/collections/c/documents", files=files)
    assert response.status_code == 400
    error_of(response)


async def test_a_text_too_long_for_the_model_is_refused_unless_it_may_be_cut(
    tmp_path: Path,
) -> None:
    text = "word " * 5000
    async with running(make_app(tmp_path)) as client:
        refused = await client.post("/v1/embeddings", json={"model": "auto", "input": ["a", text]})
        assert refused.status_code == 400
        assert error_of(refused)["code"] == "text_too_long"
        assert error_of(refused)["param"] == "input[1]"
        cut = await client.post(
            "/v1/embeddings", json={"model": "auto", "input": text, "truncate": True}
        )
        assert cut.status_code == 200


async def test_more_requests_than_places_is_a_429(tmp_path: Path) -> None:
    app = make_app(tmp_path, server={"max_connections": 1})
    async with running(app) as client:
        with app.state.gate.pass_through():
            response = await client.get("/v1/models")
            assert response.status_code == 429
            assert error_of(response)["code"] == "too_many_connections"
            assert response.headers["retry-after"] == "1"
            assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200


class Reader:
    """An ASGI app that reads its body to the end, or until told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.sizes.append(size)


def scope_of(length: int | None = None) -> Scope:
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return {"type": "http", "headers": headers}


async def no_send(message: Message) -> None:
    raise AssertionError(message)


async def test_a_silent_body_meets_its_limit() -> None:
    limit = BodyLimit(Reader(), most=100, idle_seconds=0.01)

    async def silent() -> Message:
        raise TimeoutError

    with pytest.raises(DeadlineExceeded) as caught:
        await limit(scope_of(), silent, no_send)
    assert caught.value.code == "body_timeout"


async def test_bodies_of_all_requests_together_are_bounded_and_given_back() -> None:
    limit = BodyLimit(Reader(), most=100)

    async def full() -> Message:
        return {"type": "http.request", "body": b"x" * 100, "more_body": False}

    for _ in range(2 * SHARE):
        await limit(scope_of(), full, no_send)
    for _ in range(SHARE):
        limit.hold(100)
    with pytest.raises(Overloaded) as caught:
        await limit(scope_of(), full, no_send)
    assert caught.value.code == "bodies_overloaded"


async def test_a_declared_length_is_not_believed() -> None:
    limit = BodyLimit(Reader(), most=100)

    async def liar() -> Message:
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    with pytest.raises(PayloadTooLarge):
        await limit(scope_of(10), liar, no_send)

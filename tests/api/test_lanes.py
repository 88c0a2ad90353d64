"""Lanes over HTTP: headers, keys, refusals with reasons, and what ``/v1/lanes`` then tells."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.stage import error_of, make_app, make_settings, running

from ondol.backends.fake_generator import FakeGenerator
from ondol.core.errors import SettingsError
from ondol.server.app import create_app

CHAT: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "a b c"}]}


async def lane(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/lanes")).json()["lanes"][name]
    return found


async def until(client: httpx.AsyncClient, name: str, **wanted: int) -> None:
    async with asyncio.timeout(20):
        while {key: (await lane(client, name))[key] for key in wanted} != wanted:
            await asyncio.sleep(0.01)


async def test_a_header_names_the_lane_and_a_full_one_leaves_the_others_alone(
    tmp_path: Path,
) -> None:
    gate = threading.Event()
    app = make_app(
        tmp_path,
        generator=FakeGenerator(prefill_gate=gate, slots=1),
        lanes={"reviews": {"queue": 1}},
    )
    async with running(app) as client:

        def ask(name: str) -> asyncio.Task[httpx.Response]:
            headers = {"x-ondol-lane": name}
            return asyncio.create_task(
                client.post("/v1/chat/completions", json=CHAT, headers=headers)
            )

        first = ask("reviews")
        await until(client, "reviews", running=1)
        second = ask("reviews")
        await until(client, "reviews", depth=1)
        refused = await ask("reviews")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert error_of(refused)["code"] == "overloaded"
        other = ask("chat")
        await until(client, "chat", depth=1)
        assert (await lane(client, "reviews"))["rejected_by"] == {"overloaded": 1}
        gate.set()
        answers = await asyncio.gather(first, second, other)
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        kept = (await lane(client, "reviews"))["windows"]["1m"]
        assert (kept["offered"], kept["rejected"], kept["completed"]) == (3, 1, 2)
        assert kept["attainment_offered"] == pytest.approx(2 / 3)
        assert kept["attainment_admitted"] == 1.0


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-ondol-lane": "fast"}, "x-ondol-lane"),
        ({"x-ondol-deadline-ms": "soon"}, "x-ondol-deadline-ms"),
        ({"x-ondol-deadline-ms": "0"}, "x-ondol-deadline-ms"),
        ({"x-ondol-deadline-ms": "nan"}, "x-ondol-deadline-ms"),
    ],
)
async def test_headers_that_are_off_are_named(
    tmp_path: Path, headers: dict[str, str], param: str
) -> None:
    async with running(make_app(tmp_path)) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["param"] == param
    assert error["hint"]


async def test_a_key_has_a_lane_and_a_share_of_its_places(tmp_path: Path) -> None:
    gate = threading.Event()
    app = make_app(
        tmp_path,
        generator=FakeGenerator(prefill_gate=gate, slots=1),
        server={"api_keys": ["one", "two"], "key_lanes": ["one=batch:0.5"]},
        lanes={"batch": {"queue": 3}},
    )
    async with running(app) as client:

        def ask(key: str, **headers: str) -> asyncio.Task[httpx.Response]:
            headers = {"authorization": f"Bearer {key}", **headers}
            return asyncio.create_task(
                client.post("/v1/chat/completions", json=CHAT, headers=headers)
            )

        client.headers["authorization"] = "Bearer two"
        first = ask("one", **{"x-ondol-lane": "chat"})
        await until(client, "batch", running=1)
        second = ask("one")
        await until(client, "batch", depth=1)
        refused = await ask("one")
        assert (refused.status_code, error_of(refused)["code"]) == (429, "share_used")
        other = ask("two", **{"x-ondol-lane": "batch"})
        await until(client, "batch", depth=2)
        gate.set()
        for answer in await asyncio.gather(first, second, other):
            assert answer.status_code == 200


async def test_two_keys_never_share_a_prompt_cache(tmp_path: Path) -> None:
    generator = FakeGenerator()
    app = make_app(tmp_path, generator=generator, server={"api_keys": ["one", "two"]})
    async with running(app) as client:
        cached = []
        for key in ("one", "two", "two"):
            answer = await client.post(
                "/v1/chat/completions", json=CHAT, headers={"authorization": f"Bearer {key}"}
            )
            cached.append(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached == [0, 0, 3]
    salts = [request.cache_salt for request in generator.order]
    assert salts[0] != salts[1] == salts[2]
    assert "one" not in salts[0]


@pytest.mark.parametrize("entry", ["other=chat", "one=fast", "one=chat:0", "one=chat:x", "one"])
def test_a_key_lane_that_means_nothing_is_an_error_at_start(tmp_path: Path, entry: str) -> None:
    settings = make_settings(tmp_path, server={"api_keys": ["one"], "key_lanes": [entry]})
    with pytest.raises(SettingsError, match="key_lanes"):
        create_app(settings)


async def test_a_search_holds_a_place_of_its_lane(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, keywords=True)) as client:
        await client.post("/v1/collections", json={"name": "c"})
        body = {"records": [{"id": "1", "text": "annual leave is fifteen days"}]}
        await client.post("/v1/collections/c/documents", json=body)
        answer = await client.post("/v1/collections/c/search", json={"query": "annual leave"})
        assert answer.status_code == 200
        kept = (await lane(client, "search"))["windows"]["1m"]
        assert (kept["offered"], kept["completed"]) == (1, 1)


async def test_lanes_of_encoders_report_their_own_bounds(tmp_path: Path) -> None:
    app = make_app(tmp_path, lanes={"rerank": {"queue": 7}}, models={"max_batch": 3})
    async with running(app) as client:
        lanes = (await client.get("/v1/lanes")).json()["lanes"]
    assert lanes["rerank"]["capacity"] == 7
    assert lanes["rerank"]["limit"] == 3
    assert lanes["embeddings"]["limit"] == 3
    assert lanes["rerank"]["weight"] is None
    assert lanes["chat"]["weight"] == 4.0

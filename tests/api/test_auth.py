"""Keys where they are set; only this machine where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.api.stage import error_of, make_app, running

from ondol.core.errors import SettingsError

KEYS = {"api_keys": ("first-key-0123456789", "second-key-012345678")}
CLOSED = [
    ("GET", "/v1/models"),
    ("GET", "/v1/lanes"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/collections"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/rerank"),
    ("DELETE", "/v1/collections/c"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_everything_but_health_and_the_page_needs_a_key(
    tmp_path: Path, method: str, path: str
) -> None:
    async with running(make_app(tmp_path, server=KEYS), loaded=False) as client:
        response = await client.request(method, path)
        assert response.status_code == 401
        assert error_of(response)["code"] == "missing_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code in {200, 503}
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer first-key-0123456780",  # as long as a key that is right
        "Bearer first-key-012345678",
        "Bearer first-key-01234567890",
        "Bearer",
        "Bearer ",
        "first-key-0123456789",
        "Basic first-key-0123456789",
        "Bearer first-key-0123456789,second-key-012345678",
    ],
)
async def test_a_wrong_key_is_turned_away(tmp_path: Path, header: str) -> None:
    async with running(make_app(tmp_path, server=KEYS), loaded=False) as client:
        response = await client.get("/v1/models", headers={"authorization": header})
    assert response.status_code == 401
    error = error_of(response)
    assert error["code"] == "invalid_api_key"
    assert "first-key" not in response.text


async def test_every_key_is_taken_from_any_host_name(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, server=KEYS)) as client:
        for key in KEYS["api_keys"]:
            headers = {"authorization": f"Bearer {key}", "host": "ondol.example"}
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        lower = {"authorization": f"bearer {KEYS['api_keys'][0]}"}
        assert (await client.get("/v1/models", headers=lower)).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "ondol.example", ""])
def test_a_reachable_address_without_keys_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_app(tmp_path, server={"host": host})
    assert caught.value.param == "server.api_keys"
    assert "ONDOL_SERVER_API_KEYS" in caught.value.hint
    make_app(tmp_path, server={"host": host, **KEYS})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_no_keys(tmp_path: Path, host: str) -> None:
    make_app(tmp_path, server={"host": host})


def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        make_app(tmp_path, server={"api_keys": ("",)})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8400", "127.0.0.1.evil.example", "", "10.0.0.1", "[:"]
)
async def test_without_keys_a_foreign_host_name_is_refused(tmp_path: Path, host: str) -> None:
    async with running(make_app(tmp_path), loaded=False) as client:
        response = await client.get("/v1/models", headers={"host": host})
    assert response.status_code == 400
    assert error_of(response)["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["127.0.0.1:8400", "localhost", "LOCALHOST:1", "[::1]:8400"])
async def test_without_keys_loopback_names_are_taken(tmp_path: Path, host: str) -> None:
    async with running(make_app(tmp_path)) as client:
        assert (await client.get("/v1/models", headers={"host": host})).status_code == 200
        own = {"host": host, "origin": f"http://{host}"}
        assert (await client.get("/v1/models", headers=own)).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
async def test_without_keys_a_foreign_page_is_refused(tmp_path: Path, origin: str) -> None:
    async with running(make_app(tmp_path), loaded=False) as client:
        response = await client.post(
            "/v1/collections/c/documents",
            files={"files": ("a.txt", b"planted")},
            headers={"origin": origin},
        )
    assert response.status_code == 400
    assert error_of(response)["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers

"""Every failure leaves in one envelope, with the status of the one table."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.api.stage import error_of, make_app, running

from ondol.core import errors
from ondol.core.errors import OUTCOMES, GeneratorDied, NotReady, OndolError, Overloaded, Refused
from ondol.server.server_errors import retry_after


def all_kinds() -> list[type[OndolError]]:
    """Return the whole tree."""
    found: list[type[OndolError]] = [OndolError]
    for kind in found:
        found += [sub for sub in kind.__subclasses__() if sub not in found]
    return found


def make(kind: type[OndolError]) -> OndolError:
    if issubclass(kind, Refused):
        return kind("it broke", retry_after=1.2, hint="mend it", param="part")
    return kind("it broke", hint="mend it", param="part")


def test_the_table_is_complete() -> None:
    assert set(all_kinds()) == set(OUTCOMES)
    public = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert public & set(all_kinds()) == set(all_kinds())


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
async def test_every_error_of_the_table_leaves_in_the_envelope(
    kind: type[OndolError], tmp_path: Path
) -> None:
    app = make_app(tmp_path)

    @app.get("/boom")
    async def boom() -> None:
        raise make(kind)

    async with running(app, loaded=False) as client:
        response = await client.get("/boom")
    outcome = OUTCOMES[kind]
    assert response.status_code == outcome.status
    assert error_of(response) == {
        "message": "it broke",
        "type": outcome.type,
        "code": kind.default_code,
        "param": "part",
        "hint": "mend it",
    }
    wanted = "2" if issubclass(kind, Refused) else "5" if kind is GeneratorDied else None
    assert response.headers.get("retry-after") == wanted


async def test_an_unexpected_error_tells_nothing_but_the_request_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(tmp_path)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("a secret detail")

    async with running(app, loaded=False) as client:
        with caplog.at_level(logging.ERROR, logger="ondol.server"):
            response = await client.get("/boom", headers={"x-ondol-request-id": "my-id-1"})
    assert response.status_code == 500
    assert "my-id-1" in error_of(response)["message"]
    assert "secret" not in response.text
    assert any("a secret detail" in str(record.exc_info) for record in caplog.records)


async def test_unknown_route_and_wrong_method(tmp_path: Path) -> None:
    async with running(make_app(tmp_path), loaded=False) as client:
        missing = await client.get("/v2/nothing")
        assert missing.status_code == 404
        assert error_of(missing)["code"] == "route_not_found"
        wrong = await client.get("/v1/embeddings")
        assert wrong.status_code == 405
        assert error_of(wrong)["code"] == "method_not_allowed"
        assert "POST" in wrong.headers["allow"]
        assert (await client.get("/v1/collections/")).status_code == 404


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (59.5, 60), (float("inf"), 60)]
)
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, header: int) -> None:
    assert retry_after(Overloaded("full", retry_after=seconds)) == header
    assert retry_after(NotReady("not yet", retry_after=seconds)) == header

"""How a collection is cut and what a hit is, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.api.conftest import Served
from tests.api.stage import error_of

SENTENCE = "Staff member number {n} may take fifteen days of annual leave in every year."
ROWS = [
    {"id": "long", "text": " ".join(SENTENCE.format(n=n) for n in range(20))},
    {"id": "short", "text": "Guests park in bay 42 behind the house."},
]


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """The server's client; the collections of these tests go when one ends."""
    yield served.http
    for name in ("cut", "plain"):
        served.http.delete(f"/v1/collections/{name}")


def filled(http: httpx.Client, **body: Any) -> dict[str, Any]:
    """Make the collection ``cut`` with two records and return it."""
    assert (
        http.post(
            "/v1/collections", json={"name": "cut", "chunking": "heading", **body}
        ).status_code
        == 201
    )
    assert http.post("/v1/collections/cut/documents", json={"records": ROWS}).status_code == 200
    found: dict[str, Any] = http.get("/v1/collections/cut").json()
    return found


def test_a_collection_is_made_with_its_chunking_and_shows_it(http: httpx.Client) -> None:
    made = http.post("/v1/collections", json={"name": "cut", "chunking": "record"}).json()
    assert made["chunking"]["strategy"] == "record"
    assert set(made["chunking"]) == {"strategy", "target", "overlap"}
    assert http.get("/v1/collections/cut").json()["chunking"] == made["chunking"]
    assert http.get("/v1/collections").json()["collections"] == [made]
    plain = http.post("/v1/collections", json={"name": "plain"}).json()
    assert plain["chunking"] == {**made["chunking"], "strategy": "auto"}


def test_records_are_cut_as_the_collection_says(http: httpx.Client) -> None:
    assert filled(http, chunking="record")["chunks"] == 2
    http.delete("/v1/collections/cut")
    assert filled(http, chunking="recursive")["chunks"] > 2


def test_rechunking_changes_it_and_a_dry_run_does_not(http: httpx.Client) -> None:
    before = filled(http)
    path = "/v1/collections/cut/rechunk"
    planned = http.post(path, json={"chunking": "record", "dry_run": True}).json()
    assert (planned["rechunked"], planned["unchanged"], planned["dry_run"]) == (1, 1, True)
    assert http.get("/v1/collections/cut").json() == before
    done = http.post(path, json={"chunking": "record"}).json()
    assert done["chunking"]["strategy"] == "record"
    assert (done["documents"], done["rechunked"], done["unchanged"]) == (2, 1, 1)
    assert (done["chunks"], done["embedded"], done["failed"]) == (1, 1, [])
    after = http.get("/v1/collections/cut").json()
    assert (after["chunks"], after["chunking"]["strategy"]) == (2, "record")
    again = http.post(path, json={}).json()
    assert (again["documents"], again["embedded"]) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/collections", {"name": "cut", "chunking": "page"}, "chunking"),
        ("/v1/collections/plain/rechunk", {"chunking": "page"}, "chunking"),
        ("/v1/collections/plain/rechunk", {"chunk": "record"}, "chunk"),
        ("/v1/collections/plain/rechunk", {"dry_run": "yes"}, "dry_run"),
        ("/v1/collections/plain/search", {"query": "q", "read": "page"}, "read"),
        ("/v1/collections/plain/search", {"query": "q", "read": True}, "read"),
        ("/v1/collections/plain/ask", {"question": "q", "read": "page"}, "read"),
    ],
)
def test_what_is_none_of_the_choices_is_refused_with_them(
    http: httpx.Client, path: str, body: dict[str, Any], param: str
) -> None:
    http.post("/v1/collections", json={"name": "plain"})
    refused = http.post(path, json=body)
    assert refused.status_code == 400
    error = error_of(refused)
    assert error["param"] == param
    assert error["hint"] or "'parent'" in error["message"] or "'statute'" in error["message"]


def test_an_unknown_collection_is_not_made_by_rechunking(http: httpx.Client) -> None:
    response = http.post("/v1/collections/cuts/rechunk", json={"chunking": "record"})
    assert response.status_code == 404
    assert http.get("/v1/collections/cuts").status_code == 404


def test_a_hit_is_the_passage_or_what_stands_around_it(http: httpx.Client) -> None:
    filled(http)
    text = http.get("/v1/collections/cut/documents/long").json()["text"]
    asked = {"query": "member number 12", "mode": "lexical"}
    small = http.post("/v1/collections/cut/search", json=asked).json()
    large = http.post("/v1/collections/cut/search", json={**asked, "read": "parent"}).json()
    assert (small["read"], large["read"]) == ("passage", "parent")
    assert len(large["hits"]) < len(small["hits"])
    best = large["hits"][0]
    assert len(best["text"]) > len(small["hits"][0]["text"])
    assert best["text"] == text[best["start"] : best["end"]]


def test_an_answer_may_rest_on_what_stands_around(served: Served, http: httpx.Client) -> None:
    filled(http)
    body = {"question": "How many days may member number 12 take?", "stream": True}
    spans = {}
    for read in ("passage", "parent"):
        served.script.replies.append("Staff member number 12 may take fifteen days.")
        events = http.post("/v1/collections/cut/ask", json={**body, "read": read}).text
        assert "event: done" in events
        sources = events.split("event: sources", 1)[1].split("event: ", 1)[0]
        spans[read] = sources.count('"document"')
    assert 1 <= spans["parent"] < spans["passage"]

"""Collections and documents over HTTP: upload, list, read, delete; what fails is named."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from tests.api.conftest import Served
from tests.api.stage import error_of

RULES = "제60조(연차 유급휴가) 1년간 80퍼센트 이상 출근한 근로자에게 15일의 유급휴가를 준다.\n"


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """The server's client; collections made in a test go when it ends."""
    yield served.http
    for collection in served.http.get("/v1/collections").json()["collections"]:
        served.http.delete(f"/v1/collections/{quote(collection['name'], safe='')}")


def test_collections_are_made_listed_read_and_deleted(http: httpx.Client) -> None:
    made = http.post("/v1/collections", json={"name": "취업규칙", "metadata": {"owner": "인사팀"}})
    assert made.status_code == 201
    shape = made.json()
    assert (shape["name"], shape["documents"], shape["chunks"]) == ("취업규칙", 0, 0)
    assert (shape["embedder"], shape["dimensions"]) == ("fake-embedder", 64)
    assert shape["metadata"] == {"owner": "인사팀"}
    assert http.get("/v1/collections").json() == {"collections": [shape]}
    assert http.get("/v1/collections/취업규칙").json() == shape
    again = http.post("/v1/collections", json={"name": "취업규칙"})
    assert again.status_code == 409
    assert error_of(again)["type"] == "conflict_error"
    kept = http.post("/v1/collections", json={"name": "취업규칙", "exist_ok": True})
    assert kept.status_code == 201
    assert http.delete("/v1/collections/취업규칙").json() == {"name": "취업규칙", "deleted": True}
    gone = http.get("/v1/collections/취업규칙")
    assert gone.status_code == 404
    assert error_of(gone)["type"] == "not_found_error"


def test_an_unknown_collection_is_a_404_that_names_what_there_is(http: httpx.Client) -> None:
    http.post("/v1/collections", json={"name": "handbook"})
    requests = [
        http.get("/v1/collections/handbok"),
        http.delete("/v1/collections/handbok"),
        http.get("/v1/collections/handbok/documents"),
        http.get("/v1/collections/handbok/documents/a"),
        http.post("/v1/collections/handbok/search", json={"query": "q"}),
        http.post("/v1/collections/handbok/ask", json={"question": "q"}),
        http.post("/v1/collections/handbok/ask", json={"question": "q", "stream": True}),
        http.post("/v1/collections/handbok/documents", json={"records": [{"text": "a"}]}),
        http.post("/v1/collections/handbok/documents", files={"f": ("a.txt", b"x")}),
    ]
    for response in requests:
        assert response.status_code == 404, response.request.url
        assert "handbook" in error_of(response)["hint"]


@pytest.mark.parametrize("field", ["records", "documents"])
def test_records(http: httpx.Client, field: str) -> None:
    http.post("/v1/collections", json={"name": "c"})
    records = [
        {"id": "a/1", "text": RULES, "title": "휴가", "metadata": {"kind": "law"}},
        {"id": "b", "text": "Overnight work is paid at one and a half times the rate."},
        {"id": "c", "title": "no text"},
    ]
    report = http.post("/v1/collections/c/documents", json={field: records}).json()
    assert (report["added"], report["updated"], report["unchanged"]) == (2, 0, 0)
    assert report["chunks"] >= 2
    assert [set(failure) for failure in report["failed"]] == [{"source", "code", "error", "hint"}]
    again = http.post("/v1/collections/c/documents", json={field: records[:2]}).json()
    assert (again["added"], again["unchanged"], again["chunks"]) == (0, 2, 0)
    changed = {"id": "b", "text": "Overnight work is paid double."}
    updated = http.post("/v1/collections/c/documents", json={field: [changed]}).json()
    assert (updated["added"], updated["updated"]) == (0, 1)

    listed = http.get("/v1/collections/c/documents").json()
    assert [document["document"] for document in listed["documents"]] == ["a/1", "b"]
    assert listed["next"] is None
    assert "text" not in listed["documents"][0]
    stored = http.get("/v1/collections/c/documents/a/1").json()
    assert stored["text"].strip() == RULES.strip()
    assert stored["title"] == "휴가"
    assert stored["metadata"]["kind"] == "law"
    deleted = http.delete("/v1/collections/c/documents/a/1").json()
    assert deleted["deleted"] is True
    assert deleted["chunks"] >= 1
    assert http.get("/v1/collections/c/documents/a%2F1").status_code == 404
    assert http.get("/v1/collections/c").json()["documents"] == 1


def test_lists_come_in_pages(http: httpx.Client) -> None:
    http.post("/v1/collections", json={"name": "c"})
    records = [{"id": f"d{n}", "text": f"text number {n}"} for n in range(5)]
    http.post("/v1/collections/c/documents", json={"records": records})
    seen: list[str] = []
    after: str | None = None
    while True:
        query = {"limit": "2"} | ({"after": after} if after else {})
        page = http.get("/v1/collections/c/documents", params=query).json()
        seen += [document["document"] for document in page["documents"]]
        after = page["next"]
        if after is None:
            break
    assert seen == [f"d{n}" for n in range(5)]
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"offset": "5"}):
        response = http.get("/v1/collections/c/documents", params=wrong)
        assert response.status_code == 400
        assert error_of(response)["param"] == next(iter(wrong))


def test_files_of_all_sorts_in_one_upload(http: httpx.Client) -> None:
    http.post("/v1/collections", json={"name": "c"})
    files = [
        ("files", ("handbook.md", b"# Leave\n\nFifteen days a year.\n")),
        ("files", ("../../etc/규칙.txt", RULES.encode("euc-kr"))),
        ("file", ("broken.pdf", b"%PDF-1.7 nothing more")),
        ("files", ("empty.txt", b"")),
    ]
    report = http.post("/v1/collections/c/documents", files=files).json()
    assert report["added"] == 2
    failed = {failure["source"]: failure for failure in report["failed"]}
    assert len(failed) == 2
    assert all(failure["code"] and failure["hint"] for failure in failed.values())
    assert {"broken.pdf", "empty.txt"} == {source.removeprefix("upload:") for source in failed}
    listed = http.get("/v1/collections/c/documents").json()["documents"]
    assert [document["document"] for document in listed] == ["handbook.md", "규칙.txt"]
    stored = http.get("/v1/collections/c/documents/규칙.txt").json()
    assert "유급휴가" in stored["text"]
    same = http.post("/v1/collections/c/documents", files=files[:1]).json()
    assert (same["added"], same["unchanged"]) == (0, 1)


def test_multipart_bodies_that_are_none(http: httpx.Client) -> None:
    http.post("/v1/collections", json={"name": "c"})
    path = "/v1/collections/c/documents"
    field = http.post(path, files={"f": ("a.txt", b"x")}, data={"tag": "y"})
    assert field.status_code == 400
    assert error_of(field)["param"] == "tag"
    boundless = http.post(path, content=b"x", headers={"content-type": "multipart/form-data"})
    garbage = http.post(
        path, content=b"nothing", headers={"content-type": "multipart/form-data; boundary=b"}
    )
    nameless = http.post(path, files={"f": ("/", b"x")})
    for response in (boundless, garbage, nameless):
        assert response.status_code == 400
        error_of(response)


def test_records_of_the_wrong_kind(http: httpx.Client) -> None:
    http.post("/v1/collections", json={"name": "c"})
    path = "/v1/collections/c/documents"
    for body, param in (
        ({"records": "x"}, "records"),
        ({"records": ["x"]}, "records[0]"),
        ({"records": []}, "records"),
        ({"record": []}, "record"),
        ({"records": [], "documents": []}, "documents"),
        ({}, "records"),
    ):
        response = http.post(path, json=body)
        assert response.status_code == 400
        assert error_of(response)["param"] == param


def test_search_gives_offsets_into_the_stored_text(http: httpx.Client) -> None:
    http.post("/v1/collections", json={"name": "c"})
    records = [
        {"id": "leave", "text": RULES, "metadata": {"kind": "law"}},
        {"id": "pay", "text": "Overnight work is paid at one and a half times the rate."},
    ]
    http.post("/v1/collections/c/documents", json={"records": records})
    for mode in ("hybrid", "dense", "lexical"):
        response = http.post("/v1/collections/c/search", json={"query": "유급휴가", "mode": mode})
        found = response.json()
        hit = found["hits"][0]
        assert hit["document"] == "leave"
        keys = {"document", "chunk", "page", "start", "end", "score", "text", "metadata"}
        assert keys <= set(hit)
        text = http.get("/v1/collections/c/documents/leave").json()["text"]
        assert text[hit["start"] : hit["end"]] == hit["text"]
        assert found["mode"] == mode
    one = {"query": "유급휴가 paid", "top_k": 1}
    assert len(http.post("/v1/collections/c/search", json=one).json()["hits"]) == 1
    filtered = {"query": "paid", "filter": {"kind": "law"}}
    hits = http.post("/v1/collections/c/search", json=filtered).json()["hits"]
    assert {hit["document"] for hit in hits} <= {"leave"}
    assert float(response.headers["x-ondol-tokenize-ms"]) >= 0

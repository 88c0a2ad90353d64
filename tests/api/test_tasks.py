"""Tasks over HTTP: listed, shown, run; what strays is told in the envelope."""

from __future__ import annotations

import httpx
from tests.api.stage import error_of

REVIEWS = [{"id": "a", "text": "떡볶이가 정말 맛있어요"}, {"id": "b", "text": "배달이 늦고 최악"}]


async def test_tasks_are_listed_and_shown(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/tasks")).json()["tasks"]
    assert {"reviews.sentiment", "legal.case_analysis"} <= {one["name"] for one in listed}
    shown = (await client.get("/v1/tasks/reviews.summary")).json()
    assert shown["lane"] == "reviews"
    assert shown["output"]["additionalProperties"] is False


async def test_a_task_runs(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/tasks/reviews.sentiment", json={"input": {"reviews": REVIEWS}})
    assert answer.status_code == 200
    body = answer.json()
    assert [row["id"] for row in body["result"]["labels"]] == ["a", "b"]
    assert {"evidence", "dropped_claims", "usage", "timings", "notice"} <= set(body)
    assert answer.headers["x-ondol-request-id"]


async def test_what_strays_is_told(client: httpx.AsyncClient) -> None:
    unknown = await client.post("/v1/tasks/reviews.sumary", json={"input": {}})
    assert unknown.status_code == 404
    assert "reviews.summary" in error_of(unknown)["hint"]
    strays = await client.post("/v1/tasks/reviews.summary", json={"input": {"reviews": 3}})
    assert strays.status_code == 400
    assert error_of(strays)["code"] == "invalid_task_input"
    assert (await client.post("/v1/tasks/reviews.summary", json={})).status_code == 400

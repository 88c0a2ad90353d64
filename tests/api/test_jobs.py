"""Jobs over HTTP: handed in as JSON or lines, followed, read, cancelled, each key for itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.stage import error_of, make_settings, running

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.errors import BackendError
from ondol.core.events import Observer
from ondol.core.settings import Settings
from ondol.jobs.work import FAKE_TASK, FakeWork
from ondol.server.app import create_app

KEYS = {"api_keys": ("first-key-0123456789", "second-key-012345678")}
QUICK = {"poll_seconds": 0.02, "backoff_seconds": 0.01, "give_way_seconds": 0}


@asynccontextmanager
async def serving(
    home: Path, work: FakeWork | None = None, *, works: bool = True, **sections: dict[str, Any]
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve jobs of fake work; without ``works`` nobody works them."""

    def opener(settings: Settings, observer: Observer) -> Container:
        parts = Parts(embedder=False, reranker=False, keywords=False, generator=False, fake=True)
        return Container.open(settings, parts=parts, observer=observer, work=work or FakeWork())

    jobs = {**QUICK, **sections.pop("jobs", {})}
    app = create_app(make_settings(home, jobs=jobs, **sections), opener=opener)
    async with running(app) as client:
        if not works:
            await app.state.lifecycle.drain(1.0)
        yield client


def body(*texts: str, **options: Any) -> dict[str, Any]:
    items = [{"id": f"r{n}", "input": {"text": text}} for n, text in enumerate(texts)]
    return {"task": FAKE_TASK, "items": items, "options": options}


async def submitted(client: httpx.AsyncClient, *texts: str, **options: Any) -> str:
    response = await client.post("/v1/jobs", json=body(*texts, **options))
    assert response.status_code == 202, response.text
    job: str = response.json()["id"]
    assert response.headers["location"] == f"/v1/jobs/{job}"
    return job


async def followed(client: httpx.AsyncClient, job: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a job until it has ended."""
    response = await client.get(f"/v1/jobs/{job}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in response.text.split("\n\n") if block]
    return [
        (head.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for head, data in blocks
    ]


async def test_a_job_from_handing_in_to_its_results(tmp_path: Path) -> None:
    def script(input: Mapping[str, Any], before: int) -> Exception | None:
        return BackendError("broke") if input["text"] == "flaky" and before < 1 else None

    async with serving(tmp_path, FakeWork(script=script)) as client:
        request = body("one", "flaky", "one")
        request["items"].append({"id": "r3", "input": {"wrong": 1}})
        response = await client.post("/v1/jobs", json=request)
        assert response.status_code == 202
        assert response.json()["failed"] == 1
        job = response.json()["id"]
        events = await followed(client, job)
        assert events[-1][0] == "end"
        shown = (await client.get(f"/v1/jobs/{job}")).json()
        assert shown == events[-1][1]
        assert (shown["state"], shown["total"], shown["done"]) == ("done", 4, 3)
        assert shown["errors"] == {"invalid_input": 1}
        results = await client.get(f"/v1/jobs/{job}/results")
        assert results.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in results.text.splitlines()]
        assert [line["id"] for line in lines] == ["r0", "r1", "r2", "r3"]
        assert lines[0]["result"] == lines[2]["result"] == {"text": "eno", "length": 3}
        assert (lines[1]["status"], lines[1]["attempts"]) == ("done", 2)
        assert lines[3]["error"]["code"] == "invalid_input"
        table = await client.get(f"/v1/jobs/{job}/results?format=csv&status=done")
        assert table.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(table.text)))
        assert [row["result.text"] for row in rows] == ["eno", "ykalf", "eno"]
        page = await client.get(f"/v1/jobs/{job}/results?after=0&limit=2")
        assert [json.loads(line)["ordinal"] for line in page.text.splitlines()] == [1, 2]


async def test_lines_are_taken_as_they_are_and_bad_ones_fail_alone(tmp_path: Path) -> None:
    lines = b'{"id": "a", "input": {"text": "x"}}\n\nnot json\n{"input": {"text": "y"}}'
    headers = {"content-type": "application/x-ndjson"}
    async with serving(tmp_path) as client:
        response = await client.post(
            f"/v1/jobs?task={FAKE_TASK}&priority=3&key=k", content=lines, headers=headers
        )
        assert response.status_code == 202
        view = (await followed(client, response.json()["id"]))[-1][1]
        assert (view["done"], view["errors"]) == (2, {"malformed_json": 1})
        assert (view["priority"], view["key"]) == (3, "k")
        missing = await client.post("/v1/jobs", content=lines, headers=headers)
        assert error_of(missing)["param"] == "task"


async def test_many_items_are_handed_in_and_listed_quickly(tmp_path: Path) -> None:
    async with serving(tmp_path, works=False) as client:
        items = [{"input": {"text": str(n)}} for n in range(3000)]
        first = await client.post("/v1/jobs", json={"task": FAKE_TASK, "items": items})
        assert first.json()["queued"] == 3000
        await submitted(client, "a")
        page = (await client.get("/v1/jobs?limit=1")).json()
        assert page["jobs"][0]["total"] == 1
        rest = (await client.get(f"/v1/jobs?after={page['next']}")).json()
        assert ([job["total"] for job in rest["jobs"]], rest["next"]) == ([3000], None)


async def test_cancel_resume_and_remove(tmp_path: Path) -> None:
    async with serving(tmp_path, works=False) as client:
        job = await submitted(client, "a", "b")
        assert (await client.delete(f"/v1/jobs/{job}?purge=true")).status_code == 409
        cancelled = (await client.delete(f"/v1/jobs/{job}")).json()
        assert (cancelled["state"], cancelled["cancelled"]) == ("cancelled", 2)
        results = (await client.get(f"/v1/jobs/{job}/results")).text.splitlines()
        assert [json.loads(line)["status"] for line in results] == ["cancelled"] * 2
    async with serving(tmp_path) as client:
        resumed = await client.post(f"/v1/jobs/{job}/resume", json={})
        assert resumed.status_code == 202
        assert (await followed(client, job))[-1][1]["done"] == 2
        assert (await client.delete(f"/v1/jobs/{job}")).json()["state"] == "done"
        assert (await client.delete(f"/v1/jobs/{job}?purge=true")).json()["deleted"] is True
        gone = await client.get(f"/v1/jobs/{job}")
        assert (gone.status_code, error_of(gone)["code"]) == (404, "job_not_found")


async def test_a_key_sees_its_own_jobs_only(tmp_path: Path) -> None:
    async with serving(tmp_path, works=False, server=KEYS) as client:
        mine, theirs = ({"authorization": f"Bearer {key}"} for key in KEYS["api_keys"])
        sent = await client.post("/v1/jobs", json=body("a", key="k"), headers=mine)
        job = sent.json()["id"]
        other = await client.post("/v1/jobs", json=body("b", key="k"), headers=theirs)
        assert other.json()["id"] != job
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/results"),
            ("GET", "/results?format=csv"),
            ("DELETE", ""),
            ("DELETE", "?purge=true"),
        ):
            response = await client.request(method, f"/v1/jobs/{job}{path}", headers=theirs)
            assert (response.status_code, error_of(response)["code"]) == (404, "job_not_found")
        resumed = await client.post(f"/v1/jobs/{job}/resume", json={}, headers=theirs)
        assert resumed.status_code == 404
        listed = (await client.get("/v1/jobs", headers=theirs)).json()["jobs"]
        assert [one["id"] for one in listed] == [other.json()["id"]]
        assert (await client.get(f"/v1/jobs/{job}", headers=mine)).json()["state"] == "queued"
        assert (await client.get(f"/v1/jobs/{job}")).status_code == 401


@pytest.mark.parametrize(
    ("request_body", "status", "code"),
    [
        ({"task": "nothing", "items": [{"input": {"text": "a"}}]}, 404, "unknown_task"),
        ({"task": FAKE_TASK, "items": []}, 400, "empty_input"),
        ({"task": FAKE_TASK, "items": [{"input": {}}]}, 400, "invalid_input"),
        ({"task": FAKE_TASK, "items": "x"}, 400, "invalid_input"),
        ({"task": FAKE_TASK}, 400, "missing_field"),
        ({"task": FAKE_TASK, "items": [1] * 9}, 400, "too_many_items"),
        ({**body("a"), "more": 1}, 400, "unknown_field"),
        (body("a", priority=101), 400, "invalid_input"),
        (body("a", "b", "c", "d", "e"), 429, "jobs_full"),
    ],
)
async def test_what_cannot_be_a_job_is_refused_whole(
    tmp_path: Path, request_body: dict[str, Any], status: int, code: str
) -> None:
    limits = {"max_items": 8, "max_queued_items": 8}
    async with serving(tmp_path, works=False, jobs=limits) as client:
        await submitted(client, "1", "2", "3", "4")
        response = await client.post("/v1/jobs", json=request_body)
        assert (response.status_code, error_of(response)["code"]) == (status, code)
        assert (status == 429) == ("retry-after" in response.headers)
        assert len((await client.get("/v1/jobs")).json()["jobs"]) == 1


async def test_a_key_may_fill_only_its_share_of_the_queue(tmp_path: Path) -> None:
    key = KEYS["api_keys"][0]
    server = {**KEYS, "key_lanes": (f"{key}=chat:0.5",)}
    jobs = {"max_queued_items": 4}
    async with serving(tmp_path, works=False, server=server, jobs=jobs) as client:
        headers = {"authorization": f"Bearer {key}"}
        three = await client.post("/v1/jobs", json=body("a", "b", "c"), headers=headers)
        assert three.status_code == 400
        two = await client.post("/v1/jobs", json=body("a", "b"), headers=headers)
        assert two.status_code == 202


async def test_without_tasks_there_is_nothing_to_hand_in(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/jobs", json=body("a"))
    assert (response.status_code, error_of(response)["code"]) == (404, "unknown_task")
    assert (await client.get("/v1/jobs")).json() == {"jobs": [], "next": None}

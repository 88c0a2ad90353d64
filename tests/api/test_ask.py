"""A cited answer over HTTP: the whole of it, its events in order, and what breaks on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.api.conftest import Served
from tests.api.stage import error_of

QUESTION = "야근 식대는 얼마인가요?"
ANSWER = "야근 식대는 1회 13,500원입니다."
ROWS = [
    {
        "id": "meal",
        "text": "야근 식대는 21시를 넘겨 일하면 1회 13,500원을 지급한다. 출장자는 제외한다.",
    },
    {"id": "leave", "text": "연차 휴가는 1년에 15일이다."},
]


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """The server's client, beside a collection ``c``."""
    served.http.post("/v1/collections", json={"name": "c"})
    served.http.post("/v1/collections/c/documents", json={"records": ROWS})
    yield served.http
    served.http.delete("/v1/collections/c")


def events_of(body: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream as (name, data)."""
    events = []
    for block in body.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line[1:])
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def test_a_whole_answer(served: Served, http: httpx.Client) -> None:
    served.script.replies.append(ANSWER)
    response = http.post("/v1/collections/c/ask", json={"question": QUESTION})
    assert response.status_code == 200
    answer = response.json()
    assert "13,500원" in answer["answer"]
    assert answer["abstained"] is False
    assert set(answer["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert set(answer["timings"]) == {"queue_ms", "retrieve_ms", "ttft_ms", "total_ms"}
    [citation] = answer["citations"]
    assert {"document", "page", "start", "end", "quote", "verified"} <= set(citation)
    stored = http.get(f"/v1/collections/c/documents/{citation['document']}").json()
    assert stored["text"][citation["start"] : citation["end"]] == citation["quote"]
    assert citation["verified"] is True
    for name in ("queue", "tokenize", "inference"):
        assert float(response.headers[f"x-ondol-{name}-ms"]) >= 0


def test_query_means_question(served: Served, http: httpx.Client) -> None:
    served.script.replies.append(ANSWER)
    response = http.post("/v1/collections/c/ask", json={"query": QUESTION})
    assert "13,500원" in response.json()["answer"]


def test_a_follow_up_is_completed_from_the_earlier_turns(
    served: Served, http: httpx.Client
) -> None:
    served.script.replies.append(ANSWER)
    turn = {"question": QUESTION, "answer": ANSWER, "titles": ["식대"]}
    body = {"question": "그럼 출장자는?", "history": [turn]}
    answer = http.post("/v1/collections/c/ask", json=body).json()
    assert answer["understood"] == f"{QUESTION} 그럼 출장자는?"
    for wrong, param in (
        ([{"question": " "}], "history[0]"),
        ([{"question": "x", "role": "user"}], "role"),
        ("before", "history"),
    ):
        response = http.post("/v1/collections/c/ask", json={**body, "history": wrong})
        assert response.status_code == 400
        assert error_of(response)["param"] == param


def test_events_come_in_order(served: Served, http: httpx.Client) -> None:
    served.script.replies.append(ANSWER)
    response = http.post("/v1/collections/c/ask", json={"question": QUESTION, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-ondol-request-id"]
    events = events_of(response.text)
    names = [name for name, _ in events]
    assert names[0] == "sources"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"token"}
    assert events[0][1]["hits"][0]["document"] == "meal"
    streamed = "".join(data["text"] for name, data in events if name == "token")
    done = events[-1][1]
    assert streamed.strip() == done["answer"]
    assert done["citations"]
    assert set(done["timings"]) == {"queue_ms", "retrieve_ms", "ttft_ms", "total_ms"}


def test_nothing_relevant_abstains(http: httpx.Client) -> None:
    response = http.post("/v1/collections/c/ask", json={"question": "zebra xylophone quark?"})
    answer = response.json()
    assert answer["abstained"] is True
    assert answer["citations"] == []


def test_a_stream_that_breaks_ends_with_an_error_event(served: Served, http: httpx.Client) -> None:
    served.script.replies.append(ANSWER)
    served.gate.clear()
    with http.stream(
        "POST", "/v1/collections/c/ask", json={"question": QUESTION, "stream": True}
    ) as response:
        assert response.status_code == 200
        assert served.generator.wait_active(1)
        served.generator.die()
        events = events_of(response.read().decode())
    assert events[0][0] == "sources"
    name, data = events[-1]
    assert name == "error"
    assert data["error"]["code"] == "generator_died"
    assert "done" not in [name for name, _ in events]


def test_a_dead_generator_is_a_503_before_the_stream(served: Served, http: httpx.Client) -> None:
    served.generator.die()
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    for response in (
        http.post("/v1/collections/c/ask", json={"question": QUESTION}),
        http.post("/v1/chat/completions", json=body),
    ):
        assert response.status_code == 503
        assert error_of(response)["type"] == "unavailable_error"
        assert int(response.headers["retry-after"]) >= 1
    ready = http.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["components"]["generator"]["state"] != "ready"
    assert http.get("/health/live").status_code == 200
    served.generator.revive()
    assert http.get("/health/ready").status_code == 200

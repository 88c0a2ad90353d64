"""Every built-in task: what it declares, and what its sample makes of the models and of the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from tests.pins.conftest import SAMPLES, Stage

# What the legal tasks look up; fakes find it by its words.
STATUTES = {
    "주택임대차보호법": "제3조의3(임차권등기명령) ① 임대차가 끝난 후 보증금이 반환되지 아니한 경우 임차인은 법원에 "
    "임차권등기명령을 신청할 수 있다.",
    "민법": "제750조(불법행위의 내용) 고의 또는 과실로 인한 위법행위로 타인에게 손해를 가한 자는 그 손해를 배상할 "
    "책임이 있다.",
}
QUESTION = "보증금을 돌려받지 못했습니다. 어떻게 해야 하나요?"
VOLATILE = {"seconds", "timings", "queue_ms", "ttft_ms", "total_ms", "retrieve_ms"}


async def tasks(home: Path) -> str:
    """Return declaration, prompts and result of every task, on fakes."""
    parts: list[str] = []
    stage = Stage(home, reply=None)
    async with stage.running() as client:
        await _look_ups(client)
        for listed in (await client.get("/v1/tasks")).json()["tasks"]:
            name = listed["name"]
            declared = (await client.get(f"/v1/tasks/{name}")).json()
            parts += [f"# {name}", _text(declared)]
            for sample, given in _inputs(declared):
                before = len(stage.prompts)
                response = await client.post(f"/v1/tasks/{name}", json={"input": given})
                parts.append(f"## {name} of {sample}: {response.status_code}")
                for request in stage.prompts[before:]:
                    parts += [f"[{m.role}]\n{m.content}" for m in request.messages]
                parts += ["[result]", _text(_timeless(response.json()))]
    return "\n".join([*parts, ""])


def _inputs(declared: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the samples that have what the task needs, cut to the fields it knows."""
    fields = declared["input"].get("properties", {})
    needed = set(declared["input"].get("required", []))
    pack = SAMPLES / declared["pack"] / "samples"
    samples = [(path.name, json.loads(path.read_text("utf-8"))) for path in sorted(pack.glob("*"))]
    samples.append(("a question", {"question": QUESTION, "query": QUESTION}))
    if "text" in needed:
        samples += [
            (f"{name} {review['id']}", {"text": review["text"]})
            for name, sample in samples
            for review in sample.get("reviews", [])[:2]
        ]
    cut = [(name, {k: v for k, v in sample.items() if k in fields}) for name, sample in samples]
    return [(name, given) for name, given in cut if given and needed <= set(given)]


async def _look_ups(client: httpx.AsyncClient) -> None:
    records = [{"id": name, "title": name, "text": text} for name, text in STATUTES.items()]
    for collection in ("statutes", "precedents"):
        await client.post("/v1/collections", json={"name": collection})
        path = f"/v1/collections/{collection}/documents"
        assert (await client.post(path, json={"records": records})).is_success


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)


def _timeless(value: Any) -> Any:
    """Return a result without what took how long, its figures to four places."""
    match value:
        case dict():
            return {key: _timeless(v) for key, v in value.items() if key not in VOLATILE}
        case list():
            return [_timeless(inner) for inner in value]
        case float():
            return round(value, 4)
    return value

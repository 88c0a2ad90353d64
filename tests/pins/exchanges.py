"""Requests and commands, and the shape of what comes back: keys and JSON types, never values."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.pins.conftest import TASK, Stage

HOUSE = "/v1/collections/house"
TEXT = "The floor is warm."
QUESTION = "Is the floor warm?"
RECORDS = [{"id": "floor", "title": "Floor", "text": TEXT, "metadata": {"room": 1}}]
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
ITEM = {"id": "1", "input": {"text": "ab"}}
JOB = {"task": TASK, "items": [ITEM]}
BY_NAME = {"lanes", "windows", "components"}
"""Objects whose keys are names of things, each with the same shape."""

OPEN = {"eta_seconds", "items_per_second", "started", "finished"}
"""Null or not, as quickly as the machine works."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to the server; ``JOB`` in the path is the job handed in last."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        path = self.path
        if "JOB" in path:
            jobs = (await client.get("/v1/jobs")).json()["jobs"]
            path = path.replace("JOB", jobs[0]["id"])
        return await client.request(self.method, path, json=self.body)


EXCHANGES = (
    Exchange("POST", "/v1/collections", {"name": "house"}),
    Exchange("POST", f"{HOUSE}/documents", {"records": RECORDS}),
    Exchange("GET", "/v1/collections"),
    Exchange("GET", HOUSE),
    Exchange("GET", f"{HOUSE}/documents"),
    Exchange("GET", f"{HOUSE}/documents/floor"),
    Exchange("POST", f"{HOUSE}/search", {"query": QUESTION}),
    Exchange("POST", f"{HOUSE}/ask", {"question": QUESTION}),
    Exchange("POST", f"{HOUSE}/ask", {"question": QUESTION, "stream": True}),
    Exchange("POST", f"{HOUSE}/rechunk", {"chunking": "record"}),
    Exchange("POST", "/v1/embeddings", {"model": "auto", "input": ["warm"]}),
    Exchange("POST", "/v1/rerank", {"query": "warm", "documents": ["floor", "warm floor"]}),
    Exchange("POST", "/rerank", {"query": "warm", "texts": ["floor", "warm floor"]}),
    Exchange("POST", "/v1/chat/completions", CHAT),
    Exchange("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    Exchange("POST", "/v1/jobs", JOB),
    Exchange("GET", "/v1/jobs/JOB/events"),
    Exchange("GET", "/v1/jobs/JOB"),
    Exchange("GET", "/v1/jobs"),
    Exchange("GET", "/v1/jobs/JOB/results"),
    Exchange("GET", "/v1/tasks"),
    Exchange("GET", "/v1/models"),
    Exchange("GET", "/v1/models/fake-embedder"),
    Exchange("GET", "/v1/lanes"),
    Exchange("GET", "/health/live"),
    Exchange("GET", "/health/ready"),
    Exchange("GET", "/v1/collections/nowhere"),
    Exchange("POST", f"{HOUSE}/search", {"question": "?"}),
    Exchange("DELETE", f"{HOUSE}/documents/floor"),
    Exchange("DELETE", HOUSE),
)
BARELY = ("--set", "answer.min_relevance=1e-42")
COMMANDS: Sequence[tuple[str, ...]] = (
    ("ingest", "FOLDER/documents", "-c", "house"),
    ("search", QUESTION, "-c", "house"),
    (*BARELY, "ask", QUESTION, "-c", "house"),
    ("collections", "list"),
    ("collections", "show", "house"),
    ("collections", "keywords", "house"),
    ("documents", "list", "-c", "house"),
    ("vectors", "show"),
    ("models", "list"),
    ("models", "info", "multilingual-e5-small"),
    ("task", "list"),
    ("jobs", "submit", TASK, "FOLDER/items.jsonl", "--wait"),
    ("jobs", "list"),
    ("jobs", "show", "JOB"),
    ("jobs", "results", "JOB"),
    ("eval", "retrieval", "--dataset", "FOLDER/judged"),
    ("metrics", "summary"),
    ("doctor", "--settings"),
    ("search", "warm", "-c", "nowhere"),
    ("collections", "delete", "house", "--yes"),
)


async def served(home: Path) -> str:
    """Return status, our headers and shape of every reply of the server."""
    blocks: list[str] = []
    async with Stage(home, reply=f"{TEXT} [1]").running() as client:
        for exchange in EXCHANGES:
            response = await exchange.send(client)
            ours = sorted(name for name in response.headers if name.startswith("x-ondol-"))
            body = json.dumps(exchange.body, ensure_ascii=False) if exchange.body else ""
            blocks.append(f"# {exchange.method} {exchange.path} {body}".rstrip())
            blocks.append(f"{response.status_code} {response.headers.get('content-type', '')}")
            blocks += [" ".join(ours), *_shapes(response.text), ""]
    return "\n".join(blocks)


async def commanded(folder: Path) -> str:
    """Return exit code and shape of what the commands print with ``--json``."""
    return await asyncio.to_thread(_commanded, folder)


def _commanded(folder: Path) -> str:
    _lay_out(folder)
    stage = Stage(folder / "home", reply=f"{TEXT} [1]")
    names = {"FOLDER": str(folder)}
    blocks: list[str] = []
    for line in COMMANDS:
        given = list(line)
        for name, value in names.items():
            given = [word.replace(name, value) for word in given]
        code, text = stage.command(*given)
        if line[1] == "submit":
            names["JOB"] = json.loads(text)["id"]
        blocks += [f"$ ondol --json {' '.join(line)}", f"exit {code}", *_shapes(text), ""]
    return "\n".join(blocks)


def _lay_out(folder: Path) -> None:
    """Write what the commands read: two documents, of which one is broken, a job, a judged set."""
    texts = {
        "documents/floor.txt": TEXT,
        "documents/broken.pdf": "%PDF-1.4 broken",
        "items.jsonl": json.dumps(ITEM) + "\n",
        "judged/corpus.jsonl": json.dumps({"_id": "d1", "title": "", "text": TEXT}) + "\n",
        "judged/queries.jsonl": json.dumps({"_id": "q1", "text": QUESTION}) + "\n",
        "judged/qrels.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


def _shapes(text: str) -> Iterator[str]:
    """Yield the paths and types of JSON, of lines of it, or of server-sent events."""
    lines = text.splitlines()
    events = dict.fromkeys(line[7:] for line in lines if line.startswith("event: "))
    if events:
        yield f"events: {' '.join(name for name in events if name != 'progress')}"
    kinds: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        data = line.removeprefix("data: ")
        if data[:1] in {"{", "["} and data != "[DONE]":
            for path, kind in _paths(json.loads(data), ""):
                kinds[path].add(kind)
    for path, seen in sorted(kinds.items()):
        yield f"{path} {'any' if path.rpartition('.')[2] in OPEN else '|'.join(sorted(seen))}"


def _paths(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        by_name = path.rpartition(".")[2] in BY_NAME
        if by_name:
            yield path, ", ".join(sorted(value))
        for key, inner in value.items():
            yield from _paths(inner, f"{path}.{'*' if by_name else key}".lstrip("."))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _paths(inner, f"{path}[]")
    else:
        yield path, _KINDS[type(value)]


_KINDS: Mapping[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}

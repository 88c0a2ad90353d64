"""A home that a version made: everything that must still be there when a later one opens it."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.pins.conftest import TASK, Stage, cached, tuned_choices, write_tuned
from tests.pins.golden import GOLDEN
from tests.pins.ranking import ENGLISH, KOREAN, MODES, QUERIES, hits

HOMES = GOLDEN / "homes"
DATABASES = ("ondol.db", "embeddings.db")
FILES = {
    "휴가.txt": KOREAN["휴가"],
    "lease.md": f"# Lease\n\n{ENGLISH['lease']}\n\n## 임대차\n\n{KOREAN['임대차']}\n",
}
RECORDS = [
    {"id": "parking", "title": "Parking", "text": ENGLISH["parking"], "metadata": {"floor": 1}}
]
EMBEDDED = ("온돌은 따뜻하다.", "A floor that one small fire keeps warm.")
SYNONYMS = "deposit,bond\n"
WORDS = "연차 휴가\n"


@dataclass(frozen=True, slots=True)
class Account:
    """What a home holds as text, and the texts that reached the embedder while it was read."""

    text: str
    embedded: list[str]


def versions() -> list[str]:
    """Return the versions whose homes are kept."""
    return sorted(path.name.removesuffix(".tar.gz") for path in HOMES.glob("*.tar.gz"))


async def make(home: Path) -> None:
    """Fill ``home`` by way of the server and the command of the code at hand."""
    stage = Stage(home)
    async with stage.running() as client:
        await _good(
            client.post("/v1/collections", json={"name": "house", "metadata": {"by": "pin"}})
        )
        await upload(client)
        body = {"model": "auto", "input": list(EMBEDDED)}
        await _good(client.post("/v1/embeddings", json=body))
        await _good(client.post("/v1/collections/house/search", json={"query": "deposit"}))
        job = await _submitted(client, "온돌", "floor", bad=True)
        await _good(client.get(f"/v1/jobs/{job}/events"))
    async with Stage(home).running(works=False) as client:
        await _submitted(client, "left", "lying")
    words = {"--synonyms": home.parent / "synonyms.csv", "--dictionary": home.parent / "words.txt"}
    words["--synonyms"].write_text(SYNONYMS, "utf-8")
    words["--dictionary"].write_text(WORDS, "utf-8")
    given = [str(part) for option in words.items() for part in option]
    await asyncio.to_thread(command, home, "collections", "keywords", "house", *given)
    write_tuned(home)


async def upload(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Put the files and the record into the home, and return the two reports."""
    path = "/v1/collections/house/documents"
    files = [("files", (name, text.encode(), "text/plain")) for name, text in FILES.items()]
    first = await _good(client.post(path, files=files))
    second = await _good(client.post(path, json={"records": RECORDS}))
    return [first.json(), second.json()]


def packed(home: Path) -> bytes:
    """Return the folder as a ``.tar.gz`` that depends on nothing but its files."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        for path in sorted(home.rglob("*")):
            if path.is_file() and path.suffix not in {".lock", ".pid"}:
                entry = tarfile.TarInfo(str(path.relative_to(home)))
                entry.size = path.stat().st_size
                entry.mode = 0o600
                tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return gzip.compress(inner.getvalue(), mtime=0)


def unpack(version: str, home: Path) -> None:
    """Lay out the home that ``version`` made."""
    home.mkdir(mode=0o700)
    with tarfile.open(HOMES / f"{version}.tar.gz") as tar:
        tar.extractall(home, filter="data")


async def account(home: Path) -> Account:
    """Open ``home`` with the code at hand and return all it holds."""
    before = {name: _schema(home / name) for name in DATABASES}
    requests = await asyncio.to_thread(_requests, home)
    # The cache of embeddings in memory, as by default: vectors come from the database or are lost.
    stage = Stage(home, settings={"cache": {"embeddings": "memory"}})
    async with stage.running() as client:
        documents = await _documents(client)
        searches = [await hits(client, query, mode=mode) for query, mode in _searches()]
        reports = [_json(_counts(report)) for report in await upload(client)]
        embedded = list(stage.embedded)
        changed = await _changed(client, stage)
        jobs = await _jobs(client)
    schemas = [f"{name} {before[name]} -> {_schema(home / name)}" for name in DATABASES]
    words = await asyncio.to_thread(command, home, "collections", "keywords", "house")
    sections = {
        "schemas: application, version before and after opening": schemas,
        "collection and documents": documents,
        "searches": ["", *searches],
        "sent again": reports,
        "embedded when one section has changed": changed,
        "jobs": jobs,
        "cached embeddings": cached(home, EMBEDDED),
        "own words": [_json(json.loads(words))],
        "requests on record": requests,
        "profile": tuned_choices(home),
    }
    blocks = ("\n".join([f"# {title}", *lines, ""]) for title, lines in sections.items())
    return Account("\n".join(blocks), embedded)


async def _documents(client: httpx.AsyncClient) -> list[str]:
    path = "/v1/collections/house"
    lines = [_json(await _get(client, path))]
    for document in (await _get(client, f"{path}/documents"))["documents"]:
        whole = await _get(client, f"{path}/documents/{document['document']}")
        lines += [_json(document), _json(whole)]
    return lines


async def _changed(client: httpx.AsyncClient, stage: Stage) -> list[str]:
    """Send a document of which one section has changed; return the texts that were embedded."""
    before = len(stage.embedded)
    text = FILES["lease.md"].replace("수선비", "큰 수선비")
    files = [("files", ("lease.md", text.encode(), "text/plain"))]
    await _good(client.post("/v1/collections/house/documents", files=files))
    return [_json({"text": embedded}) for embedded in stage.embedded[before:]]


def command(home: Path, *arguments: str) -> str:
    """Run the real command on ``home`` and return its data."""
    code, text = Stage(home).command(*arguments)
    assert code == 0, text
    return text


async def _jobs(client: httpx.AsyncClient) -> list[str]:
    """Return every job with its results; what was left lying is worked first."""
    lines: list[str] = []
    for job in (await _get(client, "/v1/jobs"))["jobs"]:
        path = f"/v1/jobs/{job['id']}"
        await _good(client.get(f"{path}/events"))
        shown = await _get(client, path)
        lines.append(
            _json({key: shown[key] for key in ("id", "task", "state", "total", "done", "failed")})
        )
        results = (await _good(client.get(f"{path}/results"))).text
        lines += [_json(json.loads(line)) for line in results.splitlines()]
    return lines


def _requests(home: Path) -> list[str]:
    summary = json.loads(command(home, "metrics", "summary", "--since", "36500d", "--by", "lane"))
    keys = ("group", "offered", "completed", "failed", "tokens_in")
    return [_json({key: row[key] for key in keys}) for row in summary["groups"]]


def _searches() -> list[tuple[str, str]]:
    queries = [*QUERIES["ko"][:2], QUERIES["en"][1], "bond"]
    return [(query, mode) for query in queries for mode in MODES]


def query_texts() -> set[str]:
    """Return the only texts that reading a home may embed."""
    return {query for query, _ in _searches()}


def _counts(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("added", "updated", "unchanged", "failed")}


def _schema(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        read = [
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        ]
    return f"{read[0]:#x} {read[1]}"


async def _submitted(client: httpx.AsyncClient, *texts: str, bad: bool = False) -> str:
    items: list[dict[str, Any]] = [{"id": text, "input": {"text": text}} for text in texts]
    items += [{"id": "bad", "input": {"wrong": 1}}] if bad else []
    response = await _good(client.post("/v1/jobs", json={"task": TASK, "items": items}))
    job: str = response.json()["id"]
    return job


async def _get(client: httpx.AsyncClient, path: str) -> Any:
    return (await _good(client.get(path))).json()


async def _good(sent: Any) -> httpx.Response:
    response: httpx.Response = await sent
    assert response.is_success, response.text
    return response


def _json(value: dict[str, Any]) -> str:
    """Return a line that says the same on every machine: what took how long is left out."""
    timeless = {key: inner for key, inner in value.items() if key != "seconds"}
    return json.dumps(timeless, ensure_ascii=False, sort_keys=True)

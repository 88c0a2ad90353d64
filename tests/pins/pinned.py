"""What users and their files depend on, as values that can be compared: one function a golden file.

Only public routes: the app, the command, the library. ``python scripts/write_pins.py`` writes them
anew, which is right only where a change is meant.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from tests.api.stage import StagedBackends
from tests.korean_model import shared_analyzer

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.backends.fake_generator import FakeGenerator
from ondol.core.events import BatchRun, Event
from ondol.core.settings import Settings
from ondol.core.types import GenerationRequest
from ondol.models.catalogue import catalogue
from ondol.models.forms import every_form
from ondol.server.app import create_app
from ondol.telemetry.series import MODELS, REQUESTS, STATE

GOLDEN = Path(__file__).parent / "golden"
HOME = "home.db.gz"
"""The database of a home that an earlier version made and filled with ``CORPORA``."""

CORPORA = {
    "ko": {
        "휴가": "연차 휴가는 1년에 15일이다. 3년마다 하루씩 늘어난다. 신청은 3일 전에 한다. "
        "경조 휴가는 따로 준다. 본인 결혼은 5일이다.",
        "식대": "야근 식대는 21시를 넘겨 일하면 13,500원을 지급한다. 영수증은 월말까지 낸다.",
        "임대차": "임차인이 차임을 2기 연체하면 임대인은 계약을 해지할 수 있다. "
        "대법원 2019다12345 판결은 민법 제640조를 적용하였다.",
        "출입": "정문은 22시에 닫는다. 주말에는 후문을 쓴다. 방문객은 신분증을 맡긴다.",
    },
    "en": {
        "leave": "Staff have fifteen days of annual leave in the first year. One day is added every "
        "third year. Requests are made three days before. A wedding gives five days more.",
        "shuttle": "The shuttle bus leaves the station at 7:40 every morning. It waits for nobody.",
        "parking": "Guests park in bay 42 behind the house. The gate closes at ten in the evening.",
        "returns": "A kettle may be returned within thirty days. The receipt must be shown. "
        "Opened filters are not taken back.",
    },
}
QUESTIONS = {
    "ko": [
        "연차 휴가는 며칠인가?",
        "야근 식대는 얼마인가?",
        "민법 제640조 판결",
        "정문은 언제 닫나?",
    ],
    "en": [
        "How many days of annual leave are there?",
        "When does the shuttle bus leave?",
        "Where do guests park?",
        "Can I return a kettle?",
    ],
}


class Recording:
    """An observer that counts the encoders' batches, and a script that keeps what was asked."""

    def __init__(self) -> None:
        self.batches = 0
        self.requests: list[GenerationRequest] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, BatchRun):
            self.batches += 1

    def __call__(self, request: GenerationRequest) -> Sequence[str]:
        self.requests.append(request)
        return ["?"]


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[tuple[Container, Recording]]:
    """Open ``home`` with fake models that tell what they were asked."""
    settings = Settings.model_validate({"home": home, "answer": {"min_relevance": 0.0}})
    recording = Recording()
    async with Container.open(
        settings,
        parts=Parts(keywords=True),
        observer=recording,
        backends=StagedBackends(settings, lambda: FakeGenerator(script=recording)),
        analyzer=shared_analyzer(),
    ) as container:
        yield container, recording


async def fill(container: Container) -> list[dict[str, Any]]:
    """Ingest the corpora, one collection a language; return what the reports say."""
    reports = []
    for language, texts in CORPORA.items():
        rows = [{"id": name, "text": text} for name, text in texts.items()]
        report = await container.ingest.ingest_records(language, rows)
        reports.append(
            {"added": report.added, "updated": report.updated, "unchanged": report.unchanged}
        )
    return reports


async def rankings(container: Container) -> dict[str, Any]:
    """Return the hits of every question with their scores."""
    return {
        question: [
            [hit.document, hit.start, hit.end, round(hit.score, 5)]
            for hit in (await container.retrieval.search(language, question)).hits
        ]
        for language, questions in QUESTIONS.items()
        for question in questions
    }


async def prompts(container: Container, recording: Recording) -> dict[str, Any]:
    """Return what the generator is shown for every question: the form and the selected sentences."""
    shown = {}
    for language, questions in QUESTIONS.items():
        for question in questions:
            recording.requests.clear()
            await container.ask.ask(language, question)
            shown[question] = [
                [message.role, message.content]
                for request in recording.requests
                for message in request.messages
            ]
    return shown


def openapi(home: Path) -> dict[str, Any]:
    """Return the OpenAPI document, without the version."""
    settings = Settings.model_validate({"home": home})
    document = create_app(settings).openapi()
    document["info"].pop("version")
    return document


def series() -> list[dict[str, Any]]:
    """Return every series of ``/metrics``: name, type, labels."""
    return sorted(
        (
            {"name": one.name, "kind": one.kind, "labels": list(one.labels)}
            for one in (*REQUESTS, *STATE, *MODELS)
        ),
        key=lambda row: str(row["name"]),
    )


def forms() -> dict[str, list[str]]:
    """Return the forms of every encoder in the catalogue, as profiles and settings name them."""
    return {
        entry.id: list(every_form(entry))
        for entry in catalogue().values()
        if entry.role in {"embedder", "reranker"}
    }


def packed(path: Path) -> bytes:
    """Return the SQLite file at ``path``, in one piece and small."""
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(path)) as connection:
        copy = Path(folder) / "copy.db"
        connection.execute("VACUUM INTO ?", (str(copy),))
        return gzip.compress(copy.read_bytes(), mtime=0)


def unpack(home: Path) -> None:
    """Make ``home`` the one that an earlier version left."""
    home.mkdir(mode=0o700)
    path = home / "ondol.db"
    path.write_bytes(gzip.decompress((GOLDEN / HOME).read_bytes()))
    path.chmod(0o600)


def golden(name: str) -> Any:
    """Return what the golden file ``name`` holds."""
    return json.loads((GOLDEN / name).read_text("utf-8"))


def as_text(value: Any) -> str:
    """Return ``value`` as a golden file holds it."""
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"

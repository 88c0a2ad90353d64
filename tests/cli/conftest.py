"""The real command over fake models: every room but the weights is the real one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from tests.korean_model import shared_analyzer

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.cli.invocation import Invocation
from ondol.cli.main import main
from ondol.core.settings import Settings


class Ran(NamedTuple):
    """How one command line went."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class Run(Protocol):
    def __call__(self, *arguments: str) -> Ran: ...


def fake_container(settings: Settings, parts: Parts) -> Container:
    """Fake models, and no Korean model loaded ahead of need."""
    wanted = replace(parts, fake=True, keywords=False)
    return Container.open(settings, parts=wanted, analyzer=shared_analyzer())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in process."""

    def call(*arguments: str) -> Ran:
        code = main(arguments, invocation=Invocation(open_container=fake_container))
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def notes(tmp_path: Path, run: Run) -> Path:
    """A folder with two documents, ingested into the collection ``notes``."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "leave.md").write_text(
        "# Leave\n\nStaff have fifteen days of annual leave in the first year.\n", "utf-8"
    )
    (folder / "parking.txt").write_text("Guests park in bay 42 behind the house.\n", "utf-8")
    assert run("ingest", str(folder), "-c", "notes").code == 0
    return folder

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from ondol.core.pid_file import announced

NOTE = "a server runs over this home"


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scheduling classes asked for, instead of asking for them."""
    asked: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda pid, wanted, param: asked.append(wanted))
    return asked


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "rules.txt"
    path.write_text("Guests park in bay 42 behind the house.\n", "utf-8")
    return str(path)


def test_a_running_server_has_the_processor_first(run: Run, file: str, classes: list[int]) -> None:
    with announced(Path(os.environ["ONDOL_HOME"]), port=8400):
        done = run("ingest", file, "-c", "house")
    assert done.code == 0
    assert classes == [os.SCHED_IDLE]
    assert NOTE in done.err


@pytest.mark.parametrize(("served", "more"), [(False, ()), (True, ("--full-speed",))])
def test_nothing_is_given_up_without_a_server_or_against_the_users_word(
    run: Run, file: str, classes: list[int], served: bool, more: tuple[str, ...]
) -> None:
    if served:
        with announced(Path(os.environ["ONDOL_HOME"]), port=8400):
            done = run("ingest", file, "-c", "house", *more)
    else:
        done = run("ingest", file, "-c", "house", *more)
    assert done.code == 0
    assert classes == []
    assert NOTE not in done.err


def test_where_it_is_not_allowed_the_ingest_goes_on(
    run: Run, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, wanted: int, param: os.sched_param) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with announced(Path(os.environ["ONDOL_HOME"]), port=8400):
        done = run("ingest", file, "-c", "house")
    assert done.code == 0
    assert NOTE not in done.err

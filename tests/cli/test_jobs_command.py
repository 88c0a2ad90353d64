"""``ondol jobs`` over fake work: handed in, worked here or by another process, read, cancelled."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.conftest import Ran

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.cli.invocation import Invocation
from ondol.cli.main import main
from ondol.core.settings import Settings, load_settings
from ondol.jobs.runner import RunnerLock
from ondol.jobs.work import FAKE_TASK, FakeWork

Run = Callable[..., Ran]
QUICK = ("--set", "jobs.poll_seconds=0.02")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in process."""

    def open_container(settings: Settings, parts: Parts) -> Container:
        parts = replace(parts, fake=True, keywords=False, embedder=False, reranker=False)
        return Container.open(settings, parts=parts, work=FakeWork())

    def call(*arguments: str) -> Ran:
        code = main(arguments, invocation=Invocation(open_container=open_container))
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "items.jsonl"
    lines = [json.dumps({"id": f"r{n}", "input": {"text": f"글 {n}"}}) for n in range(3)]
    path.write_text("\n".join([*lines, "no json", lines[0].replace("r0", "again")]), "utf-8")
    return str(path)


def test_waiting_without_a_server_works_the_job_here(run: Run, file: str) -> None:
    done = run("jobs", "submit", FAKE_TASK, file, "--wait", "--json", *QUICK)
    assert done.code == 0
    assert (done.data["state"], done.data["done"], done.data["failed"]) == ("done", 4, 1)
    assert FAKE_TASK in done.err
    job = done.data["id"]
    lines = [json.loads(line) for line in run("jobs", "results", job, "--json").out.splitlines()]
    assert [line["id"] for line in lines] == ["r0", "r1", "r2", "item-3", "again"]
    assert lines[0]["result"]["text"] == "0 글"
    table = run("jobs", "results", job, "--format", "csv", "--status", "done").out
    assert len(list(csv.DictReader(io.StringIO(table)))) == 4
    shown = run("jobs", "show", job)
    assert "4 of 5 done, 1 failed" in shown.out
    assert "1 × malformed_json" in shown.out


def test_without_anybody_at_work_it_says_so_and_resume_does_it(run: Run, file: str) -> None:
    queued = run("jobs", "submit", FAKE_TASK, file, "--json", "--key", "k", "--priority", "2")
    assert "nobody works jobs now" in queued.err
    assert (queued.data["state"], queued.data["priority"]) == ("queued", 2)
    job = queued.data["id"]
    assert run("jobs", "submit", FAKE_TASK, file, "--json", "--key", "k").data["id"] == job
    listed = run("jobs", "list", "--json").data["jobs"]
    assert [one["id"] for one in listed] == [job]
    assert job in run("jobs", "list").out
    assert run("jobs", "cancel", job, "--json").data["cancelled"] == 4
    assert run("jobs", "resume", job, "--wait", "--json", *QUICK).data["done"] == 4
    assert run("jobs", "delete", job, "--yes", "--json").data == {"deleted": job}
    assert run("jobs", "show", job).code == 2


def test_waiting_for_a_process_that_ends_says_how_to_go_on(run: Run, file: str) -> None:
    lock = RunnerLock(load_settings().home)
    assert lock.take()
    job = run("jobs", "submit", FAKE_TASK, file, "--json").data["id"]
    leaving = threading.Timer(0.2, lock.release)
    leaving.start()
    ended = run("jobs", "resume", job, "--wait", *QUICK)
    leaving.join()
    assert ended.code == 3
    assert f"ondol jobs resume {job} --wait" in ended.err


def test_a_job_in_which_everything_fails_is_told_by_the_exit_code(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"input": {}}\n', "utf-8")
    refused = run("jobs", "submit", FAKE_TASK, str(path), "--json")
    assert (refused.code, refused.data["error"]["code"]) == (2, "invalid_input")
    assert run("jobs", "submit", "nothing", str(path)).code == 2
    assert run("jobs", "submit", FAKE_TASK, "absent.jsonl").code == 2
    assert run("jobs", "results", "job-nothing", "--json").data["error"]["code"] == "job_not_found"
    assert run("jobs", "delete", "job-nothing").code == 2

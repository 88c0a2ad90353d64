"""Every error leaves with one line, a hint, its exit code and, with --json, one envelope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NoReturn

import pytest

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.cli.invocation import Invocation
from ondol.cli.main import main
from ondol.core.errors import OUTCOMES, OndolError, Refused
from ondol.core.settings import Settings


def failing(error: BaseException) -> Invocation:
    def open_container(settings: Settings, parts: Parts) -> NoReturn:
        raise error

    return Invocation(open_container=open_container)


def all_errors() -> Iterator[OndolError]:
    for kind in OUTCOMES:
        if issubclass(kind, Refused):
            yield kind("it went wrong", hint="mend it", retry_after=1)
        else:
            yield kind("it went wrong", hint="mend it")


@pytest.mark.parametrize("error", list(all_errors()), ids=lambda error: type(error).__name__)
def test_errors_of_ours(error: OndolError, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["collections", "list", "--json"], invocation=failing(error))
    captured = capsys.readouterr()
    outcome = OUTCOMES[type(error)]
    assert code == outcome.exit_code
    assert captured.err == "error: it went wrong\nhint: mend it\n"
    assert json.loads(captured.out) == {
        "error": {
            "message": "it went wrong",
            "type": outcome.type,
            "code": error.code,
            "param": None,
            "hint": "mend it",
        }
    }


def test_without_json_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collections", "list"], invocation=failing(OndolError("no", hint="h"))) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: no\nhint: h\n"


def test_the_unexpected_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collections", "list"], invocation=failing(ZeroDivisionError("ouch"))) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "error: unexpected ZeroDivisionError: ouch",
        "hint: run it again with -v for the details, and report them",
    ]


def test_verbose_shows_where_the_unexpected_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-v", "collections", "list"], invocation=failing(ZeroDivisionError("ouch"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collections", "list"], invocation=failing(KeyboardInterrupt())) == 130
    captured = capsys.readouterr()
    assert captured.err.strip() == "interrupted"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search"], "Missing argument 'QUERY'"),
        (["search", "q"], "Missing option '-c'"),
        (["search", "q", "-c", "x", "--mode", "magic"], "'magic' is not one of"),
        (["search", "q", "-c", "x", "--filter", "nothing"], "'nothing' is not KEY=VALUE"),
        (["search", "q", "-c", "x", "-k", "0"], "0 is not in the range"),
        (["--set", "retrieval.topk=3", "collections", "list"], "unknown setting 'retrieval.topk'"),
        (["--set", "server.port=x", "collections", "list"], "server.port"),
        (["--config", "/nowhere.toml", "collections", "list"], "/nowhere.toml does not exist"),
        (["nonsense"], "No such command"),
        (["ingest", "--nonsense"], "No such option"),
    ],
)
def test_usage_errors_end_with_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "hint: " in captured.err
    assert said in json.loads(captured.out)["error"]["message"]


def test_settings_come_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def open_container(settings: Settings, parts: Parts) -> Container:
        seen.append(settings)
        raise OndolError("enough")

    monkeypatch.setenv("ONDOL_RETRIEVAL_TOP_K", "3")
    arguments = ["--set", "retrieval.rrf_k=7", "--offline", "collections", "list"]
    arguments += ["--set", "models.sources=/a,/b"]
    assert main(arguments, invocation=Invocation(open_container=open_container)) == 1
    (settings,) = seen
    assert settings.retrieval.top_k == 3
    assert settings.retrieval.rrf_k == 7
    assert settings.models.sources == ("/a", "/b")
    assert settings.offline

"""The command tree: quick help, late imports, no command that cannot load."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from ondol.cli.main import COMMANDS, cli, main

HEAVY = ("numpy", "pydantic", "fastapi", "uvicorn", "rich", "asyncio", "httpx", "ondol.app")


def test_help_names_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "import sys; from ondol.cli.main import main; code = main(['--help']); "
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name].load()
    assert isinstance(command, click.Command)
    assert main([name, "--help"]) == 0
    assert f"Usage: ondol {name}" in capsys.readouterr().out


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docter"]) == 2
    captured = capsys.readouterr()
    assert "Did you mean 'doctor'?" in captured.err
    assert captured.out == ""


def test_no_command_shows_the_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "Usage: ondol" in captured.err
    assert captured.out == ""


def test_the_version_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ondol ")


def test_a_table_entry_must_be_a_command() -> None:
    from ondol.cli.lazy import LazyCommand

    with pytest.raises(TypeError, match="not a click command"):
        LazyCommand("ondol.cli.main:COMMANDS", "no").load()


def test_json_is_accepted_by_every_leaf() -> None:
    def leaves(command: click.Command) -> list[click.Command]:
        if not isinstance(command, click.Group):
            return [command]
        ctx = click.Context(command)
        inner = [command.get_command(ctx, name) for name in command.list_commands(ctx)]
        return [leaf for found in inner if found is not None for leaf in leaves(found)]

    for leaf in leaves(cli):
        options = {option for param in leaf.params for option in param.opts}
        assert {"--json", "--home", "--set", "--offline", "--config", "-v"} <= options, leaf.name

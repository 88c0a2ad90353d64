"""The watchdog's command as it can be said: a list in the file, a quoted line elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.core.errors import SettingsError
from ondol.core.settings import load_settings

KEY = "ONDOL_WATCHDOG_COMMAND"


def test_a_line_is_split_as_a_shell_would_and_runs_in_none(tmp_path: Path) -> None:
    said = load_settings(environ={KEY: "notify 'all is quiet' $HOME"})
    assert said.watchdog.command == ("notify", "all is quiet", "$HOME")
    flagged = load_settings(flags={"watchdog.command": "systemctl poweroff"}, environ={})
    assert flagged.watchdog.command == ("systemctl", "poweroff")
    file = tmp_path / "ondol.toml"
    file.write_text('[watchdog]\naction = "command"\ncommand = ["shutdown", "-h", "now, please"]\n')
    listed = load_settings(config=file, environ={})
    assert listed.watchdog.command == ("shutdown", "-h", "now, please")


def test_open_quotation_marks_are_named() -> None:
    with pytest.raises(SettingsError, match="No closing quotation"):
        load_settings(environ={KEY: "notify 'all"})


def test_a_command_without_a_program_and_a_dead_release_line_are_refused() -> None:
    with pytest.raises(SettingsError, match="without watchdog.command"):
        load_settings(flags={"watchdog.action": "command"}, environ={})
    with pytest.raises(SettingsError, match="cpu_percent = 60 is not above release_percent"):
        load_settings(flags={"resources.cpu_percent": "60"}, environ={})

"""The command that adds an extra fits the way in which Ondol is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ondol.core.errors import SettingsError
from ondol.core.extras import install_command, needs_extra

CHECKOUT = 'in the checkout: pip install -e ".[redis]"'
INDEX = 'pip install "ondol[redis]"'


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, INDEX),
        ({"url": "file:///w/ondol.whl", "archive_info": {}}, INDEX),
        ({"url": "file:///src/ondol", "dir_info": {}}, INDEX),
        ({"url": "file:///src/ondol", "dir_info": {"editable": True}}, CHECKOUT),
    ],
)
def test_the_command_fits_the_installation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    origin: dict[str, Any] | None,
    command: str,
) -> None:
    installed = tmp_path / "ondol-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: ondol\nVersion: 1.0\n", "utf-8")
    if origin is not None:
        (installed / "direct_url.json").write_text(json.dumps(origin), "utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    assert install_command("redis") == command


def test_without_an_installation_it_is_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])

    assert install_command("redis") == CHECKOUT


def test_a_missing_library_names_the_command() -> None:
    with pytest.raises(SettingsError) as error, needs_extra("redis"):
        raise ImportError(name="redis")

    assert error.value.hint == install_command("redis")

"""The surface is what was pinned; a change is accepted by writing the golden file anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pins import exchanges, surface
from tests.pins.golden import check

import ondol


def test_openapi(tmp_path: Path) -> None:
    check("openapi.json", surface.openapi(tmp_path))


def test_help_of_every_command() -> None:
    check("commands.txt", surface.commands())


async def test_metrics(tmp_path: Path) -> None:
    check("metrics.txt", await surface.metrics(tmp_path))


async def test_replies_of_the_server(tmp_path: Path) -> None:
    check("replies.txt", await exchanges.served(tmp_path))


async def test_replies_of_the_command(tmp_path: Path) -> None:
    check("output.txt", await exchanges.commanded(tmp_path))


def test_settings() -> None:
    check("settings.txt", surface.settings())


def test_every_pinned_variable_is_a_setting() -> None:
    variables = {surface.variable(key): "" for key in surface.setting_keys()}
    assert ondol.load_settings(environ=variables) == ondol.load_settings(environ={})


def test_public_names(tmp_path: Path) -> None:
    check("names.txt", surface.names(tmp_path))


@pytest.mark.parametrize("line", surface.documented_imports())
def test_documented_imports_work(line: str) -> None:
    exec(line, {})


def test_errors() -> None:
    check("errors.txt", surface.errors())

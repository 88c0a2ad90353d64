"""Options that several commands share.

Global options are accepted before and after the command's name; after it only ``--json`` is listed
in the help. They write into the ``Invocation`` and never reach the command's parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ondol.cli.invocation import Invocation

F = TypeVar("F", bound=Callable[..., Any] | click.Command)


class KeyValue(click.ParamType[tuple[str, Any]]):
    """``KEY=VALUE`` as a pair; the value may be empty and may hold ``=``."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, separator, rest = str(value).partition("=")
        if not key or not separator:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key.strip(), rest


class FilterOption(KeyValue):
    """``KEY=VALUE`` of a metadata filter; a value that is JSON counts as such, else it is text."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        key, text = super().convert(value, param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


def collection_option(function: F) -> F:
    """Add the required ``-c/--collection NAME``."""
    return click.option(
        "-c", "--collection", required=True, metavar="NAME", help="Collection to work on."
    )(function)


def read_option(function: F) -> F:
    """Add ``--read passage|parent``."""
    return click.option(
        "--read",
        type=click.Choice(["passage", "parent"]),
        help="The passages found, or what stands around them in their section or article.",
    )(function)


def global_options(*, listed: bool = False) -> Callable[[F], F]:
    """Add the global options; ``listed`` shows all of them in the help, else only ``--json``."""
    options = [
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_json,
            help="Data as one JSON line on stdout.",
        ),
        click.option(
            "--home",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_flag("home"),
            hidden=not listed,
            help="Where state lives (ONDOL_HOME).",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_config,
            hidden=not listed,
            help="Settings file (default: ./ondol.toml).",
        ),
        click.option(
            "--offline",
            is_flag=True,
            expose_value=False,
            callback=_flag("offline"),
            hidden=not listed,
            help="Never touch the network.",
        ),
        click.option(
            "--set",
            multiple=True,
            type=KeyValue(),
            expose_value=False,
            callback=_set,
            hidden=not listed,
            metavar="KEY=VALUE",
            help="Any setting, such as retrieval.top_k=5. See `ondol doctor --settings`.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_verbose,
            hidden=not listed,
            help="Log more on stderr; twice for everything.",
        ),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _invocation(ctx: click.Context) -> Invocation:
    return ctx.ensure_object(Invocation)


def _json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    _invocation(ctx).as_json |= value


def _verbose(ctx: click.Context, _param: click.Parameter, value: int) -> None:
    _invocation(ctx).verbosity += value


def _config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        _invocation(ctx).config = value


def _flag(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            _invocation(ctx).flags[key] = value

    return remember


def _set(ctx: click.Context, _param: click.Parameter, value: tuple[tuple[str, Any], ...]) -> None:
    _invocation(ctx).flags.update(value)

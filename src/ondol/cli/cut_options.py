"""``--chunking`` and ``--chunk-chars`` as lists: the ways of cutting a collection to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from ondol.core.chunking import STRATEGIES, ChunkStrategy

F = TypeVar("F", bound=Callable[..., Any])

USUAL = "auto,heading,recursive"
"""What is tried where no strategy is named: those that suit documents of any kind."""


class Strategies(click.ParamType[tuple[ChunkStrategy, ...]]):
    """Names of strategies, separated by commas."""

    name = "strategies"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[ChunkStrategy, ...]:
        if isinstance(value, tuple):
            return value
        named = [part.strip() for part in str(value).split(",")]
        unknown = [one for one in named if one not in STRATEGIES]
        if unknown:
            self.fail(f"{unknown[0]!r} is none of {', '.join(STRATEGIES)}", param, ctx)
        return tuple(cast("ChunkStrategy", one) for one in named)


class Lengths(click.ParamType[tuple[int, ...]]):
    """Positive whole numbers, separated by commas."""

    name = "lengths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no list of lengths such as 300,400,600", param, ctx)
        return tuple(int(part) for part in parts)


def cut_options(function: F) -> F:
    """Add ``--chunking`` and ``--chunk-chars``."""
    options = (
        click.option(
            "--chunking",
            "strategies",
            type=Strategies(),
            is_flag=False,
            flag_value=USUAL,
            metavar="[LIST]",
            help="Try ways of cutting too, in a store of their own; this cuts and embeds for each. "
            f"Strategies separated by commas; alone: {USUAL}.",
        ),
        click.option(
            "--chunk-chars",
            "lengths",
            type=Lengths(),
            metavar="LIST",
            help="Try each strategy at these lengths, such as 300,400,600.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function

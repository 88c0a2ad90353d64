"""What the generator's benches read from the command line: lists of numbers, and which generator."""

from __future__ import annotations

from typing import Any

import click

from ondol.cli.invocation import Invocation


class Numbers(click.ParamType[tuple[float, ...]]):
    """``0.7,0.9,1.0`` as numbers above 0; empty is none."""

    name = "n,n,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, such as 0.7,0.9", param, ctx)
        if any(number <= 0 for number in numbers):
            self.fail(f"{value!r} holds a number that is not above 0", param, ctx)
        return numbers


def generator_named(invocation: Invocation, model: str | None, *, url: str | None = None) -> str:
    """Return the generator's id: the one named, the settings', or what the settings would choose.

    For a server at ``url`` the name is taken as it is. Raises ``InvalidInput`` for another role,
    and ``OfflineMissing`` or ``NotFound`` where it is not here.
    """
    from ondol.core.errors import InvalidInput
    from ondol.models.generator_choice import choose_generator

    wanted = model or invocation.settings.generation.model
    if url is not None:
        if wanted in ("auto", "none"):
            raise click.UsageError("--url needs the model's name as that server knows it: --model")
        return wanted
    container = invocation.container()
    library = container.library
    if wanted == "auto":
        return choose_generator(container.machine, available=library.ready("generator")).model_id
    role = library.files(wanted).entry.role
    if role != "generator":
        raise InvalidInput(
            f"{wanted} is a {role}, not a generator",
            hint="see `ondol models list --role generator`",
            param="model",
        )
    return wanted

"""``ondol vectors``: how each collection's vectors are searched, and moving them to another index."""

from __future__ import annotations

from dataclasses import asdict

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options


@click.group()
@global_options()
def vectors() -> None:
    """Show how vectors are searched, and build or fill another index."""


@vectors.command()
@global_options()
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show each collection's rows, what indexes them, and the memory that takes."""
    from ondol.app.vector_moves import states

    found = states(invocation.settings)
    if invocation.output.as_json:
        invocation.output.data({name: asdict(state) for name, state in found.items()})
        return
    invocation.output.table(
        ("COLLECTION", "KIND", "ROWS", "INDEXED", "MEMORY MB", "DISK MB"),
        [
            (
                name,
                state.kind,
                state.rows,
                state.indexed,
                f"{state.memory_bytes / 1e6:.1f}",
                f"{state.disk_bytes / 1e6:.1f}",
            )
            for name, state in found.items()
        ],
    )


@vectors.command()
@click.option(
    "--to",
    "index",
    type=click.Choice(["exact", "ann", "postgres"]),
    required=True,
    help="The index to fill; then set vectors.index to it.",
)
@global_options()
@click.pass_obj
def move(invocation: Invocation, *, index: str) -> None:
    """Fill an index from the database and prove it, row for row.

    The database stays the truth: nothing is taken out of it, and going back needs no move.
    """
    from ondol.app.vector_moves import moved

    invocation.flags["vectors.index"] = index
    found = moved(invocation.settings)
    if invocation.output.as_json:
        invocation.output.data([asdict(one) for one in found])
        return
    invocation.output.table(
        ("COLLECTION", "ROWS", "CHECKSUM"),
        [(one.collection, one.rows, f"{one.checksum:016x}") for one in found],
    )
    invocation.output.text(f"every row is there; set vectors.index = {index!r} to search it")

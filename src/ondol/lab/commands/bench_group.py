"""``ondol bench``: how fast what runs here is; each measurement is imported only when it is run."""

from __future__ import annotations

import click

from ondol.cli.lazy import LazyCommand, LazyGroup
from ondol.cli.options import global_options

COMMANDS = {
    "embed": LazyCommand(
        "ondol.lab.commands.bench_encoders:embed", "Embed texts in bulk and alone."
    ),
    "rerank": LazyCommand(
        "ondol.lab.commands.bench_encoders:rerank", "Rerank passages in bulk and alone."
    ),
    "roofline": LazyCommand(
        "ondol.lab.commands.bench_encoders:roofline", "Place each form below the machine's peak."
    ),
    "generate": LazyCommand(
        "ondol.lab.commands.bench_generate:generate",
        "Prefill, decode, and what Ondol adds to llama.cpp.",
    ),
    "serve": LazyCommand(
        "ondol.lab.commands.bench_serve:serve", "Load a server, policy against policy."
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
@global_options()
def bench() -> None:
    """Measure speed, memory, fidelity and goodput on this machine."""

"""``ondol serve``: the HTTP server, until SIGTERM or ctrl-C."""

from __future__ import annotations

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options


@click.command()
@click.option("--host", help="Bind address (server.host); API keys are needed beyond loopback.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="TCP port (server.port); 0 lets the system choose.",
)
@global_options()
@click.pass_obj
def serve(invocation: Invocation, *, host: str | None, port: int | None) -> None:
    """Run the HTTP server (OpenAI-compatible, documents, search, ask) on 127.0.0.1:8400."""
    if host is not None:
        invocation.flags["server.host"] = host
    if port is not None:
        invocation.flags["server.port"] = port
    if invocation.verbosity:
        invocation.flags.setdefault("log_level", "debug")
    settings = invocation.settings

    from ondol.server.app import serve as run_server

    run_server(settings)

"""The root of the command, its entry point, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

import ondol
from ondol.cli.command_errors import report
from ondol.cli.invocation import Invocation
from ondol.cli.lazy import LazyCommand, LazyGroup
from ondol.cli.options import global_options
from ondol.cli.output import force_utf8

COMMANDS = {
    "serve": LazyCommand("ondol.cli.serve_command:serve", "Run the HTTP server."),
    "models": LazyCommand(
        "ondol.cli.models_command:models", "List, fetch and reload model weights."
    ),
    "ingest": LazyCommand("ondol.cli.ingest_command:ingest", "Read files into a collection."),
    "search": LazyCommand("ondol.cli.search_command:search", "Find passages in a collection."),
    "ask": LazyCommand("ondol.cli.ask_command:ask", "Answer a question, with citations."),
    "collections": LazyCommand(
        "ondol.cli.collections_command:collections",
        "List, show and delete collections, and give them words of their own.",
    ),
    "documents": LazyCommand(
        "ondol.cli.documents_command:documents", "List, show and delete documents."
    ),
    "vectors": LazyCommand("ondol.cli.vectors_command:vectors", "Show and fill vector indexes."),
    "task": LazyCommand("ondol.cli.task_command:task", "Run declared analyses and check packs."),
    "jobs": LazyCommand("ondol.cli.jobs_command:jobs", "Run a task over many items, durably."),
    "tune": LazyCommand(
        "ondol.lab.commands.tune_command:tune", "Find the fastest form of each model here."
    ),
    "bench": LazyCommand(
        "ondol.lab.commands.bench_group:bench", "Measure encoders, generator and server here."
    ),
    "eval": LazyCommand(
        "ondol.lab.commands.eval_group:evaluate", "Measure search, answers and fidelity."
    ),
    "metrics": LazyCommand("ondol.cli.metrics_command:metrics", "Show what the server did."),
    "watchdog": LazyCommand("ondol.cli.watchdog_command:watchdog", "Act when the server is idle."),
    "doctor": LazyCommand(
        "ondol.cli.doctor_command:doctor", "Check this machine, the models, the store."
    ),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 good, 2 usage, 3 refused or failed gate, 1 other. "
        "Settings: flag > ONDOL_* > ondol.toml > default."
    ),
)
@click.version_option(ondol.__version__, prog_name="ondol", message="%(prog)s %(version)s")
@global_options(listed=True)
def cli() -> None:
    """Private search and cited answers over your own documents, on one modest machine."""


def main(arguments: Sequence[str] | None = None, *, invocation: Invocation | None = None) -> int:
    """Run one command line (``sys.argv`` unless given) and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    state = invocation or Invocation()
    try:
        outcome = cli.main(arguments, prog_name="ondol", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except (Exception, KeyboardInterrupt) as error:
        # A command line that does not parse may stop before ``--json`` was seen.
        state.as_json |= "--json" in arguments
        return report(error, invocation=state)
    return outcome if isinstance(outcome, int) else 0


def run() -> NoReturn:
    """Entry point of the ``ondol`` script."""
    force_utf8()
    sys.exit(main())

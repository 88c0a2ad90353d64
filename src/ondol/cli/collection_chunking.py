"""``--chunking`` and ``ondol collections rechunk``: how documents are cut, and cutting them anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.progress import meter
from ondol.core.chunking import STRATEGIES, ChunkStrategy

if TYPE_CHECKING:
    from ondol.services.ingest_rechunking import Rechunked

F = TypeVar("F", bound=Callable[..., Any])


def chunking_option(help_text: str) -> Callable[[F], F]:
    """Add ``--chunking STRATEGY``."""
    return click.option("--chunking", type=click.Choice(STRATEGIES), default=None, help=help_text)


@click.command()
@click.argument("name")
@chunking_option("How to cut from now on; the collection's own way if left out.")
@click.option("--dry-run", is_flag=True, help="Change nothing, say what would be done.")
@global_options()
@click.pass_obj
def rechunk(
    invocation: Invocation, *, name: str, chunking: ChunkStrategy | None, dry_run: bool
) -> None:
    """Cut a collection's documents anew from their stored text; no file is needed.

    Only passages whose text changes are embedded. Lengths are those of ingest.chunk_chars and
    ingest.chunk_overlap. Stopped halfway, the same command goes on. Exit code 1 when any document
    failed.
    """
    report = invocation.run(_rechunk(invocation, name, chunking, dry_run))
    output = invocation.output
    if output.as_json:
        output.data(report)
    else:
        output.text(_told(report))
    for failure in report.failed:
        output.error(f"{failure['source']}: {failure['error']}", hint=failure["hint"])
    if report.failed:
        raise click.exceptions.Exit(1)


def _told(report: Rechunked) -> str:
    if report.dry_run:
        return (
            f"{report.collection}: {report.chunking}; would cut {report.rechunked} documents anew, "
            f"{report.unchanged} come out the same; {report.chunks} chunks, {report.embedded} of "
            "them to embed; nothing was changed"
        )
    return (
        f"{report.collection}: {report.chunking}; {report.rechunked} documents cut anew, "
        f"{report.unchanged} unchanged, {len(report.failed)} failed; "
        f"{report.chunks} chunks, {report.embedded} of them embedded, in {report.seconds:.1f} s"
    )


async def _rechunk(
    invocation: Invocation, name: str, chunking: ChunkStrategy | None, dry_run: bool
) -> Rechunked:
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:

        def show(done: int, total: int) -> None:
            shown.update(done=done, total=total, note="cutting")

        async with invocation.container(embedder=True, keywords=True) as container:
            return await container.ingest.rechunk(name, chunking, dry_run=dry_run, progress=show)

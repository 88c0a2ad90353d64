"""``ondol ingest``: files and folders into a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ondol.cli.collections_command import chunking_option
from ondol.cli.invocation import Invocation
from ondol.cli.options import collection_option, global_options
from ondol.cli.output import Output, meter
from ondol.core.chunk_options import ChunkStrategy

if TYPE_CHECKING:
    from ondol.documents.ingest_report import IngestProgress, IngestReport


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@collection_option
@chunking_option("How a new collection is cut (ingest.chunking).")
@click.option(
    "--full-speed",
    is_flag=True,
    help="Do not give way to a server that runs over the same home.",
)
@global_options()
@click.pass_obj
def ingest(
    invocation: Invocation,
    *,
    paths: tuple[Path, ...],
    collection: str,
    chunking: ChunkStrategy | None,
    full_speed: bool,
) -> None:
    """Read files and folders into a collection (PDF, TXT, Markdown, HTML, JSONL, CSV).

    What has not changed is left alone; what cannot be read is named and the rest goes on. Exit code
    1 when any document failed. While a server runs over the same home it has the processor first.
    """
    if not full_speed:
        _give_way(invocation)
    report = invocation.run(_ingest(invocation, paths, collection, chunking))
    output = invocation.output
    if output.as_json:
        output.data(report)
    else:
        output.text(
            f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged, "
            f"{report.removed} removed, {len(report.failed)} failed; "
            f"{report.chunks} chunks, {report.embedded} of them embedded, in {report.seconds:.1f} s"
        )
    _tell_troubles(output, report)
    if report.failed:
        raise click.exceptions.Exit(1)


def _give_way(invocation: Invocation) -> None:
    from ondol.core.pid_file import server_process
    from ondol.core.process import give_way

    if server_process(invocation.settings.home) is not None and give_way():
        invocation.output.note(
            "a server runs over this home and has the processor first (--full-speed: it has not)"
        )


async def _ingest(
    invocation: Invocation,
    paths: tuple[Path, ...],
    collection: str,
    chunking: ChunkStrategy | None,
) -> IngestReport:
    with meter(invocation.output, unit="bytes", clock=invocation.clock) as shown:

        def show(progress: IngestProgress) -> None:
            shown.update(
                done=progress.bytes_done,
                total=progress.bytes_total,
                note=progress.source or "reading",
            )

        async with invocation.container(embedder=True) as container:
            return await container.ingest.ingest_paths(
                collection, paths, chunking=chunking, progress=show
            )


def _tell_troubles(output: Output, report: IngestReport) -> None:
    for warning in report.warnings:
        output.note(f"{click.style('warning:', fg='yellow')} {warning}")
    for failure in report.failed:
        output.error(failure.error, hint=failure.hint)

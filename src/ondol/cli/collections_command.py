"""``ondol collections``: what is kept, by name.

``--chunking`` and ``ondol collections rechunk``: how documents are cut, and cutting them anew.

``ondol collections keywords``: the synonyms and the dictionary of one collection.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import Meter, meter
from ondol.core.chunk_options import STRATEGIES, ChunkStrategy

if TYPE_CHECKING:
    from ondol.documents.keywords import KeywordReport
    from ondol.documents.rechunking import Rechunked
    from ondol.store.records import Collection


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


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("name")
@click.option(
    "--synonyms",
    type=_FILE,
    metavar="FILE",
    help="Groups of words with one meaning: CSV, a group a line, or TOML. Replaces those known.",
)
@click.option(
    "--dictionary",
    type=_FILE,
    metavar="FILE",
    help="Words to keep whole: text, a word a line, or TOML. Replaces those known.",
)
@global_options()
@click.pass_obj
def keywords(
    invocation: Invocation, *, name: str, synonyms: Path | None, dictionary: Path | None
) -> None:
    """Give a collection synonyms and words of its own, or show how many it has.

    They are kept in the database: the files may go. Synonyms count from the next search on. Where
    the dictionary or Ondol's own rule has changed, all chunks are indexed anew; nothing is embedded.
    An empty file takes away what was given.
    """
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        found = invocation.run(_configure(invocation, name, synonyms, dictionary, shown))
    if invocation.output.as_json:
        invocation.output.data(asdict(found))
        return
    invocation.output.table(
        ("FIELD", "VALUE"),
        [
            ("collection", found.collection),
            ("groups of synonyms", found.synonyms),
            ("words kept whole", found.dictionary),
            ("chunks", found.chunks),
            ("indexed anew", found.reindexed),
        ],
    )


async def _configure(
    invocation: Invocation,
    name: str,
    synonyms: Path | None,
    dictionary: Path | None,
    shown: Meter,
) -> KeywordReport:
    from ondol.language.dictionary import read_dictionary
    from ondol.language.synonyms import read_synonyms

    groups = None if synonyms is None else read_synonyms(synonyms)
    words = None if dictionary is None else read_dictionary(dictionary)
    async with invocation.container() as container:
        return await asyncio.to_thread(
            container.keywords.configure,
            name,
            synonyms=groups,
            dictionary=words,
            progress=lambda done, total: shown.update(
                done=done, total=total, note="indexing chunks anew"
            ),
        )


@click.group()
@global_options()
def collections() -> None:
    """List, show and delete collections, and give them words of their own."""


collections.add_command(keywords)
collections.add_command(rechunk)


@collections.command("list")
@global_options()
@click.pass_obj
def list_collections(invocation: Invocation) -> None:
    """List all collections."""

    async def work() -> list[Collection]:
        async with invocation.container() as container:
            return await asyncio.to_thread(container.store.collections)

    found = invocation.run(work())
    output = invocation.output
    if output.as_json:
        output.data({"collections": found})
    elif not found:
        output.note("no collection yet; make one with: ondol ingest PATH -c NAME")
    else:
        output.table(
            ("NAME", "DOCUMENTS", "CHUNKS", "EMBEDDER"),
            [(c.name, c.documents, c.chunks, c.embedder) for c in found],
        )


@collections.command()
@click.argument("name")
@global_options()
@click.pass_obj
def show(invocation: Invocation, *, name: str) -> None:
    """Show one collection."""

    async def work() -> Collection:
        async with invocation.container() as container:
            return await asyncio.to_thread(container.store.collection, name)

    found = invocation.run(work())
    output = invocation.output
    if output.as_json:
        output.data(found)
        return
    created = datetime.fromtimestamp(found.created).strftime("%Y-%m-%d %H:%M")
    output.table(
        ("FIELD", "VALUE"),
        [
            ("name", found.name),
            ("documents", found.documents),
            ("chunks", found.chunks),
            ("embedder", f"{found.embedder} ({found.dimensions} dimensions)"),
            ("chunking", str(found.chunking or "not recorded; recorded at the next ingest")),
            ("created", created),
            *_calibrated(found),
        ],
    )


def _calibrated(found: Collection) -> list[tuple[str, str]]:
    """Return what `ondol eval calibrate` keeps of the collection, a row for each thing."""
    from ondol.search.calibration import calibration_of

    kept = calibration_of(found.calibration)
    rows = []
    if kept.fusion is not None:
        how = "by query, around" if kept.fusion.by_query else "of"
        on = kept.fusion.figures.get("learned_on", "?")
        rows.append(
            ("fusion", f"share {how} {kept.fusion.dense:g} for vectors (from {on} questions)")
        )
    for language, one in kept.rerank.items():
        use = "reranked" if one.helps else "not reranked"
        rows.append((f"reranking {language}", f"{use} ({one.model}: nDCG@10 {one.gain:+.4f})"))
    return rows


@collections.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@global_options()
@click.pass_obj
def delete(invocation: Invocation, *, name: str, yes: bool) -> None:
    """Delete a collection with all its documents."""

    async def work() -> Collection:
        async with invocation.container() as container:
            found = await asyncio.to_thread(container.store.collection, name)
            if not yes:
                confirm(f"delete collection {name!r} with {found.documents} documents?")
            await asyncio.to_thread(container.store.delete_collection, name)
            return found

    found = invocation.run(work())
    if invocation.output.as_json:
        invocation.output.data({"deleted": name, "documents": found.documents})
    else:
        invocation.output.text(f"deleted {name} ({found.documents} documents)")


def confirm(question: str) -> None:
    """Ask on the terminal; without one, refuse and name the flag."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say so with --yes: there is no terminal to ask on.")
    click.confirm(question, abort=True, err=True)

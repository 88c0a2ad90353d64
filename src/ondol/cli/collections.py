"""``ondol collections``: what is kept, by name."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ondol.cli.collection_chunking import rechunk
from ondol.cli.collection_keywords import keywords
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options

if TYPE_CHECKING:
    from ondol.store.records import Collection


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
    from ondol.services.calibration import calibration_of

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

"""``ondol documents``: the documents of a collection, and the text that citations point into."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from ondol.cli.collections_command import confirm
from ondol.cli.invocation import Invocation
from ondol.cli.options import collection_option, global_options

if TYPE_CHECKING:
    from ondol.store.records import StoredDocument


@click.group()
@global_options()
def documents() -> None:
    """List, show and delete the documents of a collection."""


@documents.command("list")
@collection_option
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--after", metavar="DOCUMENT", help="Go on after this document.")
@global_options()
@click.pass_obj
def list_documents(
    invocation: Invocation, *, collection: str, limit: int, after: str | None
) -> None:
    """List documents, without their text."""

    async def work() -> list[StoredDocument]:
        async with invocation.container() as container:
            return await asyncio.to_thread(
                container.store.documents, collection, limit=limit, after=after
            )

    found = invocation.run(work())
    output = invocation.output
    if output.as_json:
        output.data({"documents": found})
        return
    output.table(
        ("DOCUMENT", "TITLE", "CHUNKS", "SOURCE"),
        [(d.document, d.title, d.chunks, d.source) for d in found],
    )
    if len(found) == limit:
        output.note(f"there may be more: --after {found[-1].document}")


@documents.command()
@click.argument("document")
@collection_option
@global_options()
@click.pass_obj
def show(invocation: Invocation, *, document: str, collection: str) -> None:
    """Show one document with its stored text; citations are offsets into it."""

    async def work() -> StoredDocument:
        async with invocation.container() as container:
            return await asyncio.to_thread(container.store.document, collection, document)

    found = invocation.run(work())
    output = invocation.output
    if output.as_json:
        output.data(found)
        return
    output.note(f"{found.title}  {found.source}  ({found.media_type}, {len(found.pages)} pages)")
    output.text(found.text, newline=not found.text.endswith("\n"))


@documents.command()
@click.argument("names", nargs=-1, required=True, metavar="DOCUMENT...")
@collection_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@global_options()
@click.pass_obj
def delete(invocation: Invocation, *, names: tuple[str, ...], collection: str, yes: bool) -> None:
    """Delete documents with their chunks, keywords and vectors."""

    async def work() -> int:
        async with invocation.container() as container:
            store = container.store
            for name in names:
                await asyncio.to_thread(store.document, collection, name)
            if not yes:
                confirm(f"delete {len(names)} documents from {collection!r}?")
            return sum(
                [await asyncio.to_thread(store.delete_document, collection, n) for n in names]
            )

    chunks = invocation.run(work())
    if invocation.output.as_json:
        invocation.output.data({"deleted": list(names), "chunks": chunks})
    else:
        invocation.output.text(f"deleted {len(names)} documents ({chunks} chunks)")

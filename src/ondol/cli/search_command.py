"""``ondol search``: the passages that fit a query, best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import FilterOption, collection_option, global_options, read_option
from ondol.cli.output import Output, shorten
from ondol.language.language import has_hangul

if TYPE_CHECKING:
    from ondol.core.types import Hit, Reading, SearchMode
    from ondol.search.retrieval import SearchResult

SNIPPET_COLUMNS = 240


@click.command()
@click.argument("query")
@collection_option
@click.option("-k", "--top-k", type=click.IntRange(min=1), help="How many passages to return.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "dense", "lexical"]),
    help="Vectors and keywords, vectors alone, or keywords alone.",
)
@click.option("--rerank/--no-rerank", default=None, help="Reorder the best hits with the reranker.")
@read_option
@click.option(
    "--filter",
    "conditions",
    multiple=True,
    type=FilterOption(),
    metavar="KEY=VALUE",
    help="Only documents with this metadata: law=민법, 'rating={\"gte\": 4}'. May be repeated.",
)
@global_options()
@click.pass_obj
def search(
    invocation: Invocation,
    *,
    query: str,
    collection: str,
    top_k: int | None,
    mode: SearchMode | None,
    rerank: bool | None,
    read: Reading | None,
    conditions: tuple[tuple[str, Any], ...],
) -> None:
    """Find the passages of a collection that fit QUERY.

    Each hit names its document, page and character range in the document's stored text.
    """

    result = invocation.run(
        _search(
            invocation,
            collection,
            query,
            top_k=top_k,
            mode=mode,
            rerank=rerank,
            read=read,
            filter=dict(conditions) or None,
        )
    )
    output = invocation.output
    if output.as_json:
        output.data(result)
        return
    if not result.hits:
        output.note("no passage found")
    for rank, hit in enumerate(result.hits, start=1):
        _show(output, rank, hit)


async def _search(
    invocation: Invocation,
    collection: str,
    query: str,
    *,
    top_k: int | None,
    mode: SearchMode | None,
    rerank: bool | None,
    read: Reading | None,
    filter: Mapping[str, Any] | None,
) -> SearchResult:
    defaults = invocation.settings.retrieval
    mode = mode or defaults.mode
    wanted = invocation.container(
        embedder=mode != "lexical",
        keywords=mode != "dense" and has_hangul(query),
        reranker=defaults.rerank != "off" if rerank is None else rerank,
    )
    async with wanted as container:
        return await container.retrieval.search(
            collection, query, top_k=top_k, mode=mode, rerank=rerank, read=read, filter=filter
        )


def _show(output: Output, rank: int, hit: Hit) -> None:
    place = f", p. {hit.page}" if hit.page is not None else ""
    title = click.style(hit.title or hit.document, bold=True)
    output.text(f"{rank}. {title}{place}  ({hit.score:.3f})")
    output.text(f"   {shorten(hit.text, columns=SNIPPET_COLUMNS)}")
    output.text(click.style(f"   {hit.document} [{hit.start}:{hit.end}]", dim=True))

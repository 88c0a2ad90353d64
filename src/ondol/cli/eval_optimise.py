"""``ondol eval optimise``: the cut and the search settings that suit the user's own questions."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ondol.cli.cut_options import cut_options
from ondol.cli.eval_corpus import ingest_corpus, judged_options
from ondol.cli.eval_optimise_report import commands, show
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.progress import meter
from ondol.core.chunking import ChunkStrategy

if TYPE_CHECKING:
    from ondol.services.container import Container
    from ondol.services.evaluation.datasets import Query
    from ondol.services.evaluation.optimise import Told
    from ondol.services.evaluation.optimised import Optimised


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to try on which documents; ``folder`` is where cuts may lie, ``None`` to try none."""

    dataset: Path
    collection: str | None
    queries: list[Query]
    rerank: bool
    strategies: tuple[ChunkStrategy, ...]
    lengths: tuple[int, ...]
    folder: Path | None


@click.command()
@judged_options(required=True)
@click.option("--rerank", is_flag=True, help="Try reranking too; this takes much longer.")
@cut_options
@global_options()
@click.pass_obj
def optimise(
    invocation: Invocation,
    *,
    dataset: Path,
    collection: str | None,
    limit: int | None,
    rerank: bool,
    strategies: tuple[ChunkStrategy, ...] | None,
    lengths: tuple[int, ...] | None,
) -> None:
    """Choose cut, mode, fusion, weight, candidates, reranking and top_k on half of the questions.

    The other half decides whether the choice beats what is set; if it does not, what is set stays.
    Prints the commands to run and the settings to use; changes nothing.
    """
    from ondol.services.evaluation.datasets import load_judged
    from ondol.services.evaluation.halves import halves
    from ondol.services.evaluation.history import record
    from ondol.services.scratch import scratch_folder

    if collection is None and not dataset.is_dir():
        raise click.UsageError("a question file needs the collection to search: -c NAME")
    settings = invocation.settings
    cuts = bool(strategies or lengths)
    if cuts and settings.models.embedder == "none":
        raise click.UsageError("other cuts must be embedded, and models.embedder is none")
    queries = load_judged(dataset)[:limit]
    halves(queries)  # too few questions are told before anything is loaded
    with scratch_folder(settings.home) if cuts else nullcontext() as folder:
        wanted = _Wanted(
            dataset, collection, queries, rerank, strategies or (), lengths or (), folder
        )
        name, found = invocation.run(_optimise(invocation, wanted))
    lines = commands(found, name, settings.ingest)
    report = {
        "collection": name,
        "dataset": dataset.resolve().name,
        **found.as_json(),
        "commands": lines,
    }
    kept = {key: value for key, value in report.items() if key != "trials"}
    record(settings.home, "optimise", kept, at=invocation.clock.wall())
    if invocation.output.as_json:
        invocation.output.data(report)
        return
    show(invocation.output, found, lines)


async def _optimise(invocation: Invocation, wanted: _Wanted) -> tuple[str, Optimised]:
    opening = invocation.container(embedder=True, keywords=True, reranker=wanted.rerank)
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        async with opening as container:
            name = wanted.collection or await ingest_corpus(container, wanted.dataset, shown)
            found = await _tried(
                invocation,
                wanted,
                container,
                name,
                lambda done, total, note: shown.update(done=done, total=total, note=note),
            )
            return name, found


async def _tried(
    invocation: Invocation, wanted: _Wanted, container: Container, name: str, told: Told
) -> Optimised:
    import asyncio

    from ondol.services.evaluation.cuts import candidates
    from ondol.services.evaluation.cutting import cutting
    from ondol.services.evaluation.optimise import Optimiser

    kept = await asyncio.to_thread(container.store.collection, name)
    async with AsyncExitStack() as stack:
        maker = None
        cuts = []
        if wanted.folder is not None:
            cuts = candidates(
                kept.chunking,
                container.ingest.chunking(),
                strategies=wanted.strategies,
                lengths=wanted.lengths,
            )
            if not cuts:
                invocation.output.note(f"{name} is cut so already: there is no other cut to try")
            opening = cutting(container, kept, wanted.folder, clock=invocation.clock)
            maker = await stack.enter_async_context(opening)
        optimiser = Optimiser(
            container.retrieval,
            now=invocation.clock.monotonic,
            dense=invocation.settings.models.embedder != "none",
            rerank=wanted.rerank,
            cutting=maker,
        )
        return await optimiser.optimise(
            kept, wanted.queries, invocation.settings.retrieval, cuts=cuts, told=told
        )

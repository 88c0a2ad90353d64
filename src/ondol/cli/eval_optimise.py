"""``ondol eval optimise``: the search settings that suit the user's own questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.eval_corpus import ingest_corpus
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.progress import meter

if TYPE_CHECKING:
    from ondol.services.evaluation.datasets import Query
    from ondol.services.evaluation.optimise import Optimised


@click.command()
@click.option(
    "--dataset",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Questions as JSONL (question, document), or a BEIR folder.",
)
@click.option(
    "-c",
    "--collection",
    metavar="NAME",
    help="Where the documents are; without it, a BEIR folder's own corpus is ingested.",
)
@click.option("--limit", type=click.IntRange(min=16), help="Only the first so many questions.")
@click.option("--rerank", is_flag=True, help="Try reranking too; this takes much longer.")
@global_options()
@click.pass_obj
def optimise(
    invocation: Invocation,
    *,
    dataset: Path,
    collection: str | None,
    limit: int | None,
    rerank: bool,
) -> None:
    """Choose mode, fusion, weight, candidates and reranking on half of the questions.

    The other half decides whether the choice beats what is set; if it does not, what is set stays.
    Prints the settings to use; writes none.
    """
    from ondol.services.evaluation.datasets import load_judged
    from ondol.services.evaluation.history import record

    if collection is None and not dataset.is_dir():
        raise click.UsageError("a question file needs the collection to search: -c NAME")
    queries = load_judged(dataset)[:limit]
    name, found = invocation.run(_optimise(invocation, dataset, collection, queries, rerank))
    report = {"collection": name, "dataset": dataset.resolve().name, **found.as_json()}
    kept = {key: value for key, value in report.items() if key != "trials"}
    record(invocation.settings.home, "optimise", kept, at=invocation.clock.wall())
    if invocation.output.as_json:
        invocation.output.data(report)
        return
    _show(invocation, found)


async def _optimise(
    invocation: Invocation,
    dataset: Path,
    collection: str | None,
    queries: list[Query],
    rerank: bool,
) -> tuple[str, Optimised]:
    from ondol.services.evaluation.halves import halves
    from ondol.services.evaluation.optimise import Optimiser

    halves(queries)  # too few questions are told before anything is loaded
    wanted = invocation.container(embedder=True, keywords=True, reranker=rerank)
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        async with wanted as container:
            name = collection or await ingest_corpus(container, dataset, shown)
            optimiser = Optimiser(
                container.retrieval,
                now=invocation.clock.monotonic,
                dense=invocation.settings.models.embedder != "none",
                rerank=rerank,
            )
            found = await optimiser.optimise(
                name,
                queries,
                invocation.settings.retrieval,
                told=lambda done, total: shown.update(done=done, total=total, note="queries"),
            )
            return name, found


def _show(invocation: Invocation, found: Optimised) -> None:
    output = invocation.output
    rows = [trial.as_json() for trial in found.trials]
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("retrieval."))
    output.table(
        (*(key.removeprefix("retrieval.").upper() for key in keys), "NDCG_AT_10", "RECALL_AT_10"),
        [
            (*(row.get(key, "") for key in keys), *_figures(row, "ndcg_at_10", "recall_at_10"))
            for row in rows
        ],
    )
    gained = found.differences["ndcg_at_10"]
    output.note(
        f"on {found.held_out} questions that did not choose: nDCG@10 {gained.mean:+.4f} "
        f"({gained.low:+.4f} to {gained.high:+.4f})"
    )
    if gained.low <= 0 <= gained.high:
        output.note("this may be chance: more questions would tell")
    if not found.adopted:
        output.text("keep the settings as they are")
        return
    output.text("[retrieval]")
    for key, value in found.as_json()["settings"].items():
        shown = f'"{value}"' if isinstance(value, str) else value
        output.text(f"{key.removeprefix('retrieval.')} = {shown}")


def _figures(row: dict[str, Any], *keys: str) -> list[str]:
    return [f"{row[key]:.4f}" for key in keys]

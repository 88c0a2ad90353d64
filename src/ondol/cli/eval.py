"""``ondol eval``: how well search and answers do on questions with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.fidelity import fidelity
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.progress import Meter, meter

if TYPE_CHECKING:
    from ondol.core.types import SearchMode
    from ondol.services.container import Container
    from ondol.services.evaluation.datasets import Question
    from ondol.services.evaluation.retrieval import RetrievalEvaluation
    from ondol.services.ingest_report import IngestProgress

FIGURES = ("ndcg_at_10", "recall_at_10", "mrr_at_10")


@click.group("eval")
@global_options()
def evaluate() -> None:
    """Measure search and answers on known questions, and forms against their reference."""


evaluate.add_command(fidelity)


@evaluate.command()
@click.option(
    "--dataset",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="BEIR folder: corpus.jsonl, queries.jsonl, qrels.tsv.",
)
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "dense", "lexical"]),
    default="hybrid",
    show_default=True,
    help="How passages are found.",
)
@click.option("--all-modes", is_flag=True, help="Measure the other modes too, side by side.")
@click.option("--rerank/--no-rerank", default=False, show_default=True, help="Rerank the hits.")
@global_options()
@click.pass_obj
def retrieval(
    invocation: Invocation, *, dataset: Path, mode: SearchMode, all_modes: bool, rerank: bool
) -> None:
    """Search for every judged query; report nDCG, recall and MRR at 10.

    The corpus goes into the collection eval-NAME and stays there, so that a second run only
    searches; use --home to keep it apart from yours.
    """
    result = invocation.run(
        _retrieval(invocation, dataset, mode=mode, all_modes=all_modes, rerank=rerank)
    )
    output = invocation.output
    if output.as_json:
        output.data(result.as_json(mode))
        return
    output.table(
        ("MODE", *(figure.upper() for figure in FIGURES), "SECONDS"),
        [
            (name, *(f"{getattr(scores, f):.4f}" for f in FIGURES), f"{scores.seconds:.1f}")
            for name, scores in result.modes.items()
        ],
    )
    output.note(f"{result.dataset}: {result.queries} queries, {result.documents} documents")


@evaluate.command()
@click.option(
    "--dataset",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Questions as JSONL (question, answers, document), or a BEIR folder with answers.",
)
@click.option(
    "-c",
    "--collection",
    metavar="NAME",
    help="Where the documents are; without it, a BEIR folder's own corpus is ingested.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many questions.")
@click.option("--items", "with_items", is_flag=True, help="Report every question, too.")
@global_options()
@click.pass_obj
def answers(
    invocation: Invocation,
    *,
    dataset: Path,
    collection: str | None,
    limit: int | None,
    with_items: bool,
) -> None:
    """Ask every question; report how right, how well cited and how quick the answers are."""
    from ondol.services.evaluation.datasets import load_questions

    if collection is None and not dataset.is_dir():
        raise click.UsageError("a question file needs the collection to ask: -c NAME")
    questions = load_questions(dataset)[:limit]
    report = invocation.run(_answers(invocation, dataset, collection, questions))
    items = report.pop("items")
    output = invocation.output
    if output.as_json:
        output.data({**report, "items": items} if with_items else report)
        return
    output.table(("FIGURE", "VALUE"), [(key, _figure(value)) for key, value in report.items()])
    if with_items:
        output.table(
            ("ID", "RIGHT", "CITED", "QUESTION", "ANSWER"),
            [
                (i["id"], i["contains"], i["citations_right"], i["question"], i["answer"])
                for i in items
            ],
        )


async def _retrieval(
    invocation: Invocation, dataset: Path, *, mode: SearchMode, all_modes: bool, rerank: bool
) -> RetrievalEvaluation:
    from ondol.services.evaluation.datasets import load_beir
    from ondol.services.evaluation.retrieval import MODES, RetrievalEvaluator

    loaded = load_beir(dataset)
    clock = invocation.clock
    with meter(invocation.output, unit="items", clock=clock) as shown:
        async with invocation.container(embedder=True, keywords=True, reranker=rerank) as container:
            evaluator = RetrievalEvaluator(
                container.ingest, container.retrieval, now=clock.monotonic
            )
            return await evaluator.evaluate(
                loaded,
                modes=MODES if all_modes else (mode,),
                rerank=rerank,
                ingesting=_ingesting(shown),
                querying=lambda done, total: shown.update(done=done, total=total, note="queries"),
            )


async def _answers(
    invocation: Invocation, dataset: Path, collection: str | None, questions: list[Question]
) -> dict[str, Any]:
    from ondol.services.evaluation.answers import AnswerEvaluator, summarise

    wanted = invocation.container(
        embedder=True,
        keywords=True,
        reranker=invocation.settings.retrieval.rerank != "off",
        generator=True,
    )
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        async with wanted as container:
            asked = collection or await _ingest_corpus(container, dataset, shown)
            evaluator = AnswerEvaluator(container.ask, container.store)
            results = await evaluator.evaluate(
                asked,
                questions,
                told=lambda done, total: shown.update(done=done, total=total, note="questions"),
            )
            return {
                "model": container.chat.model,
                "collection": asked,
                **summarise(results),
                "items": [result.as_json() for result in results],
            }


async def _ingest_corpus(container: Container, folder: Path, shown: Meter) -> str:
    from ondol.services.evaluation.datasets import load_beir

    loaded = load_beir(folder)
    collection = f"eval-{loaded.name}"
    await container.ingest.ingest_paths(collection, [loaded.corpus], progress=_ingesting(shown))
    return collection


def _ingesting(shown: Meter) -> Any:
    def show(progress: IngestProgress) -> None:
        shown.update(done=progress.documents, total=0, note="documents ingested")

    return show


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)

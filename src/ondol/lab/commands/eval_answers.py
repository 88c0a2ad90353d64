"""``ondol eval answers``: how right, how well cited and how quick answers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import meter
from ondol.lab.commands.eval_retrieval import ingest_corpus

if TYPE_CHECKING:
    from ondol.lab.evaluate.datasets import Question


@click.command()
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
    """Ask every question; report how right, how well cited and how quick the answers are.

    Questions without answers are those that must be declined: abstained_rightly is their share.
    """
    from ondol.lab.evaluate.datasets import load_questions
    from ondol.lab.evaluate.history import record

    if collection is None and not dataset.is_dir():
        raise click.UsageError("a question file needs the collection to ask: -c NAME")
    questions = load_questions(dataset)[:limit]
    report = invocation.run(_answers(invocation, dataset, collection, questions))
    items = report.pop("items")
    record(
        invocation.settings.home,
        "answers",
        {"dataset": dataset.resolve().name, **report},
        at=invocation.clock.wall(),
    )
    output = invocation.output
    if output.as_json:
        output.data({**report, "items": items} if with_items else report)
        return
    intervals = report.pop("intervals")
    output.table(
        ("FIGURE", "VALUE", "95 % INTERVAL"),
        [(key, _figure(value), _bounds(intervals.get(key))) for key, value in report.items()],
    )
    if with_items:
        output.table(
            ("ID", "RIGHT", "CITED", "QUESTION", "ANSWER"),
            [
                (i["id"], i["contains"], i["citations_right"], i["question"], i["answer"])
                for i in items
            ],
        )


async def _answers(
    invocation: Invocation, dataset: Path, collection: str | None, questions: list[Question]
) -> dict[str, Any]:
    from ondol.lab.evaluate.answer_evaluation import AnswerEvaluator, summarise

    wanted = invocation.container(
        embedder=True,
        keywords=True,
        reranker=invocation.settings.retrieval.rerank != "off",
        generator=True,
    )
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        async with wanted as container:
            asked = collection or await ingest_corpus(container, dataset, shown)
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


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _bounds(found: list[float] | None) -> str:
    return f"{found[0]:.4f} – {found[1]:.4f}" if found else ""

"""``ondol models finetune``: a model of your own, from your documents and questions.

Prepares, trains and examines one after another, so that search and training never hold memory at the
same time; shows how far it is, and says at the end what the model gained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import Meter, meter
from ondol.lab.commands.eval_retrieval import ingest_corpus

if TYPE_CHECKING:
    from ondol.lab.evaluate.datasets import Query
    from ondol.lab.finetune.finetuning import Finetuning, FinetuningOutcome, PreparedFinetuning
    from ondol.lab.finetune.recipe import Recipe, TrainingProgress
    from ondol.lab.finetune.training_loop import TrainingReport

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("name")
@click.option("-c", "--collection", metavar="NAME", help="The collection it is for.")
@click.option(
    "--pairs",
    multiple=True,
    type=_PATH,
    metavar="PATH",
    help="JSONL of query and documents, or a BEIR folder. May be repeated.",
)
@click.option(
    "--judge",
    type=_PATH,
    metavar="PATH",
    help="Questions that decide, in the same shape; none is trained on. Default: a share of the pairs.",
)
@click.option(
    "--share",
    type=click.FloatRange(0.05, 0.9),
    default=0.3,
    show_default=True,
    help="Share of the pairs to hold back and decide by.",
)
@click.option(
    "--from-text",
    type=click.IntRange(min=0),
    metavar="N",
    help="Make N pairs of the text itself. Default: 2000 without --pairs, else none.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    help="Stop training after so long. Without it a run ends with its epochs and is reproducible.",
)
@click.option(
    "--epochs", type=click.FloatRange(min=0, min_open=True), help="Times all pairs are seen."
)
@click.option(
    "--method",
    type=click.Choice(["full", "lora"]),
    help="Change the layers' weights, or low-rank additions to them.",
)
@click.option(
    "--layers", type=click.IntRange(min=0), help="Train the last N layers, 6 by default; 0 all."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Highest learning rate.")
@click.option("--batch", type=click.IntRange(min=2), help="Queries in one step.")
@click.option("--negatives", type=click.IntRange(min=0), help="Wrong passages beside each query.")
@click.option(
    "--mine",
    type=click.Choice(["hybrid", "lexical", "dense"]),
    default="hybrid",
    show_default=True,
    help="How wrong passages are found.",
)
@click.option(
    "--reranker", is_flag=True, help="Make a small reranker of it instead, with a head of its own."
)
@click.option(
    "--teacher",
    default="",
    metavar="MODEL",
    help="Reranker whose scores it learns, not the pairs'.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=0,
    help="Layers the reranker has; 0 all the base's.",
)
@click.option(
    "--precision", type=click.Choice(["auto", "bf16", "fp32"]), help="Of products in training."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
@global_options()
@click.pass_obj
def finetune(
    invocation: Invocation,
    /,
    *,
    name: str,
    collection: str | None,
    pairs: tuple[Path, ...],
    judge: Path | None,
    share: float,
    from_text: int | None,
    mine: Literal["hybrid", "lexical", "dense"],
    reranker: bool,
    teacher: str,
    keep: int,
    **numbers: Any,
) -> None:
    """Train the settings' embedder on a collection; NAME is the new model's.

    It is added only if it finds no less on held-back questions than the base does; else exit 3.
    A run that is stopped goes on when it is asked for again. Use it with --set models.embedder=NAME
    and ingest into a new collection.
    """
    from ondol.lab.finetune.finetuning import Finetuning, FinetuningOptions
    from ondol.lab.finetune.reranker_finetuning import RerankerFinetuning
    from ondol.lab.finetune.training_pairs import Mining, read_pairs

    corpus = next((path for path in pairs if path.is_dir()), None)
    if collection is None and corpus is None:
        raise click.UsageError("name the collection with -c, or give a BEIR folder as --pairs")
    if (teacher or keep) and not reranker:
        raise click.UsageError("--teacher and --keep are for a reranker: add --reranker")
    invocation.start_logging()
    queries = [query for path in pairs for query in read_pairs(path)]
    judging = None if judge is None else read_pairs(judge)
    recipe = _recipe(invocation, numbers)
    wish = FinetuningOptions(
        name=name,
        collection=collection or f"eval-{corpus.resolve().name if corpus else ''}",
        share=share,
        from_text=from_text if from_text is not None else (0 if queries else 2000),
        mining=Mining(mode=mine, seed=recipe.seed),
        keep=keep,
        teacher=teacher,
    )
    kind = RerankerFinetuning if reranker else Finetuning
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        run = kind(
            invocation.settings,
            wish,
            recipe,
            library=invocation.container().library,
            clock=invocation.clock,
            told=lambda what, done, total: shown.update(done=done, total=total, note=what),
        )
        corpus = corpus if collection is None else None
        prepared = invocation.run(_prepare(invocation, run, queries, judging, corpus, shown))
        _note(invocation, prepared)
        learned, found = run.train(prepared, told=_training(shown))
        _note_training(invocation, learned.report)
        verdict = invocation.run(_examine(invocation, run, prepared, found.entry))
        outcome = run.finish(prepared, learned, found, verdict)
    _show(invocation, outcome)


async def _prepare(
    invocation: Invocation,
    run: Finetuning,
    pairs: list[Query],
    judge: list[Query] | None,
    corpus: Path | None,
    shown: Meter,
) -> PreparedFinetuning:
    async with invocation.container(embedder=True, keywords=True) as container:
        if corpus is not None:
            await ingest_corpus(container, corpus, shown)
        return await run.prepare(container, pairs, judge)


async def _examine(
    invocation: Invocation, run: Finetuning, prepared: PreparedFinetuning, entry: Any
) -> Any:
    async with invocation.container(embedder=True, keywords=True) as container:
        return await run.examine(container, prepared, entry)


def _recipe(invocation: Invocation, numbers: dict[str, Any]) -> Recipe:
    from ondol.core.machine import describe
    from ondol.lab.finetune.recipe import Recipe

    said = {key: value for key, value in numbers.items() if value is not None}
    return Recipe(threads=invocation.settings.models.threads or describe().cores, **said)


def _training(shown: Meter) -> Callable[[TrainingProgress], None]:
    def show(progress: TrainingProgress) -> None:
        left = f"{progress.seconds_left / 60:.0f} min left"
        note = f"training, loss {progress.loss:.3f}, {left}"
        shown.update(done=progress.step, total=progress.steps, note=note)

    return show


def _note(invocation: Invocation, prepared: PreparedFinetuning) -> None:
    note = invocation.output.note
    note(
        f"{len(prepared.material.items)} pairs to learn from, {len(prepared.held_back)} to judge by"
    )
    if prepared.overlapping:
        note(f"{prepared.overlapping} pairs left out: they repeat questions that judge")
    if prepared.material.unknown:
        note(f"{prepared.material.unknown} pairs left out: they name no document of the collection")


def _note_training(invocation: Invocation, report: TrainingReport) -> None:
    invocation.output.note(
        f"trained in {report.steps} steps, loss {report.first_loss:.3f} to {report.last_loss:.3f}"
    )


def _show(invocation: Invocation, outcome: FinetuningOutcome) -> None:
    output = invocation.output
    if output.as_json:
        output.data({"model": outcome.entry.id, "forms": outcome.entry.forms, **outcome.made})
        return
    output.table(
        ("SEARCH", "NDCG_AT_10 BEFORE", "AFTER", "DIFFERENCE", "95 %"),
        [
            (
                name,
                f"{mode.base['ndcg_at_10']:.4f}",
                f"{mode.tuned['ndcg_at_10']:.4f}",
                f"{mode.difference.mean:+.4f}",
                f"{mode.difference.low:+.4f} to {mode.difference.high:+.4f}",
            )
            for name, mode in outcome.verdict.modes.items()
        ],
    )
    if not outcome.verdict.certain:
        output.note("this may be chance: more questions would tell")
    entry = outcome.entry
    output.text(f"{entry.id}  ready; use it with --set models.{entry.role}={entry.id}")

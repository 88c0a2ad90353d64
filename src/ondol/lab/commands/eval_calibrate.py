"""``ondol eval calibrate``: what the user's own questions say about searching one collection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import meter
from ondol.lab.commands.eval_retrieval import ingest_corpus, judged_options

if TYPE_CHECKING:
    from ondol.app.container import Container
    from ondol.cli.output import Output
    from ondol.lab.evaluate.datasets import Query
    from ondol.lab.evaluate.fusion_calibration import LearnedFusion
    from ondol.search.calibration import CollectionCalibration


@dataclass(frozen=True, slots=True)
class _Found:
    """What was learned, and what the collection's record holds now."""

    collection: str
    learned: LearnedFusion
    kept: CollectionCalibration

    def as_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            **self.learned.as_json(),
            "calibration": self.kept.as_json(),
        }


@click.command()
@judged_options(required=False)
@click.option(
    "--rerank", is_flag=True, help="Measure the reranker by language too; this takes much longer."
)
@click.option("--dry-run", is_flag=True, help="Measure, but keep nothing.")
@click.option("--remove", is_flag=True, help="Forget what was measured for the collection.")
@global_options()
@click.pass_obj
def calibrate(
    invocation: Invocation,
    *,
    dataset: Path | None,
    collection: str | None,
    limit: int | None,
    rerank: bool,
    dry_run: bool,
    remove: bool,
) -> None:
    """Learn how to weigh vectors and keywords in a collection, from questions of yours.

    One half of the questions learns, the other decides; what is accepted is kept with the collection
    and used by every search in it from then on. `ondol collections show` tells what is kept.
    """
    if remove:
        _remove(invocation, collection)
        return
    if dataset is None:
        raise click.UsageError("say which questions: --dataset PATH")
    if collection is None and not dataset.is_dir():
        raise click.UsageError("a question file needs the collection to search: -c NAME")
    from ondol.lab.evaluate.datasets import load_judged
    from ondol.lab.evaluate.history import record

    queries = load_judged(dataset)[:limit]
    found = invocation.run(
        _calibrate(invocation, dataset, collection, queries, rerank=rerank, keep=not dry_run)
    )
    report = {"dataset": dataset.resolve().name, **found.as_json()}
    record(invocation.settings.home, "calibrate", report, at=invocation.clock.wall())
    if invocation.output.as_json:
        invocation.output.data(report)
    else:
        _show(invocation.output, found, kept=not dry_run)


def _remove(invocation: Invocation, collection: str | None) -> None:
    if collection is None:
        raise click.UsageError("say which collection: -c NAME")
    from ondol.store.calibration_rows import CalibrationStore

    async def work() -> None:
        async with invocation.container() as container:
            await asyncio.to_thread(CalibrationStore(container.store.database).set, collection, {})

    invocation.run(work())
    if invocation.output.as_json:
        invocation.output.data({"collection": collection, "calibration": {}})
    else:
        invocation.output.text(f"nothing is kept of {collection} any more; the settings hold")


async def _calibrate(
    invocation: Invocation,
    dataset: Path,
    collection: str | None,
    queries: list[Query],
    *,
    rerank: bool,
    keep: bool,
) -> _Found:
    from ondol.lab.evaluate.datasets import halves
    from ondol.lab.evaluate.fusion_calibration import Calibrator
    from ondol.search.calibration import calibration_of
    from ondol.store.calibration_rows import CalibrationStore

    halves(queries)  # too few questions are told before anything is loaded
    wanted = invocation.container(embedder=True, keywords=True, reranker=rerank)
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:

        def told(done: int, total: int) -> None:
            shown.update(done=done, total=total, note="queries")

        async with wanted as container:
            store = container.store
            calibrations = CalibrationStore(store.database)
            name = collection or await ingest_corpus(container, dataset, shown)
            settings = invocation.settings.retrieval
            calibrator = Calibrator(container.retrieval, store, settings)
            learned = await calibrator.learn(name, queries, told=told)
            kept = calibration_of((await asyncio.to_thread(store.collection, name)).calibration)
            # What is not accepted now must not stay on the word of older questions.
            kept = replace(kept, fusion=learned.weight if learned.accepted else None)
            if keep:
                await asyncio.to_thread(calibrations.set, name, kept.as_json())
            if rerank:
                kept = await _with_reranker(invocation, container, name, queries, kept, told)
                if keep:
                    await asyncio.to_thread(calibrations.set, name, kept.as_json())
            return _Found(name, learned, kept)


async def _with_reranker(
    invocation: Invocation,
    container: Container,
    collection: str,
    queries: list[Query],
    kept: CollectionCalibration,
    told: Callable[[int, int], None],
) -> CollectionCalibration:
    from ondol.lab.evaluate.fusion_calibration import rerank_gains

    found = await rerank_gains(
        container.retrieval,
        collection,
        queries,
        model=container.reranking.model,
        now=invocation.clock.monotonic,
        told=told,
    )
    return replace(kept, rerank={**kept.rerank, **found})


def _show(output: Output, found: _Found, *, kept: bool) -> None:
    learned, held = found.learned, found.learned.held_back
    by_query = "–" if held.by_query is None else f"{held.by_query:.4f}"
    output.table(
        ("ON THE HELD-BACK HALF", "NDCG_AT_10"),
        [
            ("vectors alone", f"{held.dense:.4f}"),
            ("keywords alone", f"{held.lexical:.4f}"),
            ("as set", f"{held.default:.4f}"),
            (f"weight {learned.weight.dense:g}", f"{held.fixed:.4f}"),
            ("weight by query", by_query),
        ],
    )
    gained = learned.against_default
    output.note(
        f"{held.questions} questions that did not learn: nDCG@10 {gained.mean:+.4f} against what is "
        f"set ({gained.low:+.4f} to {gained.high:+.4f})"
    )
    for language, verdict in found.kept.rerank.items():
        output.text(
            f"reranking {language}: {verdict.gain:+.4f} ({verdict.low:+.4f} to {verdict.high:+.4f}, "
            f"{verdict.questions} questions): {'used' if verdict.helps else 'not used'}"
        )
    if not learned.accepted:
        output.text(f"keep the settings as they are: {learned.reason}")
    elif kept:
        output.text(f"kept with {found.collection}: {learned.reason}")
    else:
        output.text(f"would be kept with {found.collection}: {learned.reason}")

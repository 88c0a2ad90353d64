"""``ondol eval optimise``: the cut and the search settings that suit the user's own questions.

What ``ondol eval optimise`` tells people: what was tried, what is sure of it, what to run.

``--chunking`` and ``--chunk-chars`` as lists: the ways of cutting a collection to try.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import meter
from ondol.core.chunk_options import STRATEGIES, ChunkStrategy
from ondol.lab.commands.eval_retrieval import ingest_corpus, judged_options

if TYPE_CHECKING:
    from ondol.app.container import Container
    from ondol.cli.output import Output
    from ondol.core.chunk_options import ChunkOptions
    from ondol.core.settings.sections import IngestSettings
    from ondol.core.types import OnStep
    from ondol.lab.evaluate.cut_optimiser import CutTrial, Optimised
    from ondol.lab.evaluate.datasets import Query
    from ondol.lab.evaluate.statistics import Difference


_FIGURES = ("ndcg_at_10", "recall_at_10")


def commands(found: Optimised, collection: str, ingest: IngestSettings) -> list[str]:
    """Return the command lines that cut ``collection`` as was found best; none where it stays."""
    chunking = found.cut.chunking
    if not found.recut or chunking is None:
        return []
    lengths = {
        "ingest.chunk_chars": (chunking.target, ingest.chunk_chars),
        "ingest.chunk_overlap": (chunking.overlap, ingest.chunk_overlap),
    }
    flags = [f" --set {key}={new}" for key, (new, set_now) in lengths.items() if new != set_now]
    return [
        f"ondol collections rechunk {collection} --chunking {chunking.strategy}{''.join(flags)}"
    ]


def show(output: Output, found: Optimised, lines: list[str]) -> None:
    """Write the tables and the advice; ``lines`` are the commands to run."""
    if len(found.cuts) > 1:
        _show_cuts(output, found)
    _show_trials(output, found)
    _show_depth(output, found)
    _say_how_sure(output, found)
    for line in lines:
        output.text(line)
    _show_settings(output, found)


def _show_cuts(output: Output, found: Optimised) -> None:
    output.table(
        ("CUT", "PASSAGES", "EMBEDDED", "SECONDS", "NDCG_AT_10", "RECALL_AT_10"),
        [
            (
                _cut(one.cut.chunking),
                one.cut.passages,
                one.cut.embedded,
                f"{one.cut.seconds:.1f}",
                *_figures(one),
            )
            for one in found.cuts
        ],
    )
    output.text()


def _show_trials(output: Output, found: Optimised) -> None:
    several = len(found.cuts) > 1
    rows = [one.as_json() for one in found.trials]
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("retrieval."))
    keys.pop("retrieval.top_k")  # is chosen from the hits of the best: every trial has the same
    output.table(
        (
            *(("CUT",) if several else ()),
            *(key.removeprefix("retrieval.").upper() for key in keys),
            "NDCG_AT_10",
            "RECALL_AT_10",
        ),
        [
            (
                *((_cut(trial.cut.chunking),) if several else ()),
                *(row.get(key, "") for key in keys),
                *_figures(trial),
            )
            for trial, row in zip(found.trials, rows, strict=True)
        ],
    )


def _show_depth(output: Output, found: Optimised) -> None:
    output.text()
    output.table(
        ("TOP_K", "RECALL", "TOKENS"),
        [(one.k, f"{one.recall:.4f}", f"{one.tokens:.0f}") for one in found.depth.curve],
    )


def _say_how_sure(output: Output, found: Optimised) -> None:
    gained = _gain(found.differences["ndcg_at_10"])
    output.note(f"on {found.held_out} questions that did not choose: nDCG@10 {gained}")
    if found.cut_alone is not None:
        output.note(f"the cut alone, with all settings as they are: {_gain(found.cut_alone)}")
    if found.chosen is found.trials[0]:
        output.note("nothing that was tried is better than what is set")
    elif found.unsure:
        output.note("this may be chance: more questions would tell")
    depth = found.depth
    if depth.wanted.k != depth.before.k:
        output.note(
            f"top_k {depth.wanted.k} on those questions: recall {depth.wanted.recall:.4f}, about "
            f"{depth.wanted.tokens:.0f} tokens to read; top_k {depth.before.k} as all is set now: "
            f"{depth.before.recall:.4f}, {depth.before.tokens:.0f}"
        )
        if not depth.adopted:
            output.note(f"top_k {depth.wanted.k} was not confirmed there")


def _show_settings(output: Output, found: Optimised) -> None:
    settings: dict[str, Any] = found.as_json()["settings"]
    if not found.adopted:
        if not found.depth.adopted:
            output.text("keep the settings as they are")
            return
        settings = {"retrieval.top_k": found.depth.k}
    output.text("[retrieval]")
    for key, value in settings.items():
        shown = f'"{value}"' if isinstance(value, str) else value
        output.text(f"{key.removeprefix('retrieval.')} = {shown}")


def _cut(chunking: ChunkOptions | None) -> str:
    return "unrecorded" if chunking is None else f"{chunking.strategy} {chunking.target}"


def _gain(found: Difference) -> str:
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _figures(trial: CutTrial) -> list[str]:
    return [f"{getattr(trial, figure):.4f}" for figure in _FIGURES]


F = TypeVar("F", bound=Callable[..., Any])

USUAL = "auto,heading,recursive"
"""What is tried where no strategy is named: those that suit documents of any kind."""


class Strategies(click.ParamType[tuple[ChunkStrategy, ...]]):
    """Names of strategies, separated by commas."""

    name = "strategies"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[ChunkStrategy, ...]:
        if isinstance(value, tuple):
            return value
        named = [part.strip() for part in str(value).split(",")]
        unknown = [one for one in named if one not in STRATEGIES]
        if unknown:
            self.fail(f"{unknown[0]!r} is none of {', '.join(STRATEGIES)}", param, ctx)
        return tuple(cast("ChunkStrategy", one) for one in named)


class Lengths(click.ParamType[tuple[int, ...]]):
    """Positive whole numbers, separated by commas."""

    name = "lengths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no list of lengths such as 300,400,600", param, ctx)
        return tuple(int(part) for part in parts)


def cut_options(function: F) -> F:
    """Add ``--chunking`` and ``--chunk-chars``."""
    options = (
        click.option(
            "--chunking",
            "strategies",
            type=Strategies(),
            is_flag=False,
            flag_value=USUAL,
            metavar="[LIST]",
            help="Try ways of cutting too, in a store of their own; this cuts and embeds for each. "
            f"Strategies separated by commas; alone: {USUAL}.",
        ),
        click.option(
            "--chunk-chars",
            "lengths",
            type=Lengths(),
            metavar="LIST",
            help="Try each strategy at these lengths, such as 300,400,600.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


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
    from ondol.app.scratch import scratch_folder
    from ondol.lab.evaluate.datasets import halves, load_judged
    from ondol.lab.evaluate.history import record

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
    invocation: Invocation, wanted: _Wanted, container: Container, name: str, told: OnStep
) -> Optimised:
    import asyncio

    from ondol.lab.evaluate.cut_optimiser import Optimiser, candidates, cutting

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

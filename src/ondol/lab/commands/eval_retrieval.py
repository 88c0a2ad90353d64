"""``ondol eval retrieval``: how well search finds what is known to be right.

Measures, compares with other settings, writes a report, and holds the run against a baseline.

What ``ondol eval retrieval`` shows: one JSON document, or tables for people.

Judged questions and their corpus: the options that name them, and the corpus taken in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import KeyValue, global_options
from ondol.cli.output import Output, meter

if TYPE_CHECKING:
    from ondol.app.container import Container
    from ondol.cli.output import Meter
    from ondol.core.settings.sections import RetrievalSettings
    from ondol.core.types import SearchMode
    from ondol.documents.ingest_report import IngestProgress, Progress
    from ondol.lab.evaluate.datasets import RetrievalDataset
    from ondol.lab.evaluate.quality_gate import GateVerdict
    from ondol.lab.evaluate.retrieval_evaluation import RetrievalEvaluation, RetrievalScores


def show(
    output: Output,
    found: RetrievalEvaluation,
    mode: SearchMode,
    verdict: GateVerdict | None,
    *,
    items: bool,
) -> None:
    if output.as_json:
        data = found.as_json(mode, items=items)
        if verdict is not None:
            data["gate"] = verdict.as_json()
        output.data(data)
        return
    head = ("MODE", *map(str.upper, found.modes[mode].figures()), "SECONDS")
    output.table(head, [_row(name, scores) for name, scores in found.modes.items()])
    _show_types(output, found.modes[mode])
    if found.against is not None:
        _show_against(output, found)
    if items:
        output.table(
            ("QUERY", "KIND", "NDCG_AT_10", "RECALL_AT_10", "FIRST"),
            [
                (
                    q.id,
                    q.type,
                    f"{q.ndcg_at_10:.4f}",
                    f"{q.recall_at_10:.4f}",
                    (q.ranked or ("",))[0],
                )
                for q in found.modes[mode].queries
            ],
        )
    output.note(f"{found.dataset}: {found.queries} queries, {found.documents} documents")


def _row(name: str, scores: RetrievalScores) -> tuple[str, ...]:
    figures = scores.figures().values()
    return name, *(f"{figure:.4f}" for figure in figures), f"{scores.seconds:.1f}"


def _show_types(output: Output, scores: RetrievalScores) -> None:
    output.text()
    output.table(
        ("FIGURE", "MEAN", "95 % INTERVAL"),
        [
            (figure, f"{one.mean:.4f}", f"{one.low:.4f} – {one.high:.4f}")
            for figure, one in scores.intervals().items()
        ],
    )
    names = list(scores.figures())
    output.text()
    output.table(
        ("KIND", "QUERIES", *map(str.upper, names)),
        [
            (kind, int(figures["queries"]), *(f"{figures[name]:.4f}" for name in names))
            for kind, figures in scores.by_type().items()
        ],
    )


def _show_against(output: Output, found: RetrievalEvaluation) -> None:
    output.text()
    output.text("against " + ", ".join(f"{k}={v}" for k, v in (found.changed or {}).items()))
    output.table(
        ("FIGURE", "DIFFERENCE", "95 % INTERVAL", "BETTER IN RESAMPLES"),
        [
            (
                figure,
                f"{one.mean:+.4f}",
                f"{one.low:+.4f} – {one.high:+.4f}",
                f"{one.share_better:.0%}",
            )
            for figure, one in found.differences().items()
        ],
    )


F = TypeVar("F", bound=Callable[..., Any])


def judged_options(*, required: bool) -> Callable[[F], F]:
    """Add ``--dataset PATH``, ``-c/--collection NAME`` and ``--limit N``."""

    def add(function: F) -> F:
        options = (
            click.option(
                "--dataset",
                required=required,
                type=click.Path(path_type=Path),
                metavar="PATH",
                help="Questions as JSONL (question, document), or a BEIR folder.",
            ),
            click.option(
                "-c",
                "--collection",
                metavar="NAME",
                help="Where the documents are; without it, a BEIR folder's own corpus is ingested.",
            ),
            click.option(
                "--limit", type=click.IntRange(min=16), help="Only the first so many questions."
            ),
        )
        for option in reversed(options):
            function = option(function)
        return function

    return add


async def ingest_corpus(container: Container, folder: Path, shown: Meter) -> str:
    """Take the corpus of a BEIR folder in, where it has changed; return the collection's name."""
    from ondol.lab.evaluate.datasets import load_beir
    from ondol.lab.evaluate.retrieval_evaluation import collection_of

    loaded = load_beir(folder)
    collection = collection_of(loaded)
    await container.ingest.ingest_paths(collection, [loaded.corpus], progress=ingesting(shown))
    return collection


def ingesting(shown: Meter) -> Progress:
    """Return what tells ``shown`` how many documents are in."""

    def show(progress: IngestProgress) -> None:
        shown.update(done=progress.documents, total=0, note="documents ingested")

    return show


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options ask for; ``against`` maps dotted settings to values, as typed."""

    mode: SearchMode
    all_modes: bool
    rerank: bool
    against: dict[str, Any]

    def other_mode(self) -> SearchMode:
        mode: SearchMode = self.against.get("retrieval.mode", self.mode)
        return mode

    def other_rerank(self) -> bool | None:
        """Whether the other settings rerank: as they say, else as the first do."""
        said = {"on": True, "off": False, "auto": None}
        return said[self.against["retrieval.rerank"]] if self._says_rerank() else self.rerank

    def needs_reranker(self) -> bool:
        return self.rerank or self.other_rerank() is not False

    def _says_rerank(self) -> bool:
        return "retrieval.rerank" in self.against


@click.command()
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
@click.option(
    "--against",
    multiple=True,
    type=KeyValue(),
    metavar="KEY=VALUE",
    help="Compare with these settings of search, such as retrieval.fusion=ranks. May be repeated.",
)
@click.option("--items", "with_items", is_flag=True, help="Report every query, too.")
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write an HTML page that needs nothing else.",
)
@click.option(
    "--save-baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep this run's scores for --gate.",
)
@click.option(
    "--gate",
    "baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Exit 3 if nDCG or recall at 10 fell below this baseline.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.005,
    show_default=True,
    help="By how much they may fall.",
)
@global_options()
@click.pass_obj
def retrieval(
    invocation: Invocation,
    *,
    dataset: Path,
    mode: SearchMode,
    all_modes: bool,
    rerank: bool,
    against: tuple[tuple[str, Any], ...],
    with_items: bool,
    page: Path | None,
    save_baseline: Path | None,
    baseline: Path | None,
    tolerance: float,
) -> None:
    """Search for every judged query; report nDCG, recall and MRR with 95 % intervals.

    The corpus goes into the collection eval-NAME and stays there, so that a second run only
    searches; use --home to keep it apart from yours. What was found is added to evaluations.jsonl.
    """
    from ondol.lab.evaluate import quality_gate
    from ondol.lab.evaluate.datasets import load_beir
    from ondol.lab.evaluate.history import record

    loaded = load_beir(dataset)
    wish = _Wish(mode, all_modes, rerank, dict(against))
    other = _other_settings(invocation, wish) if against else None
    before = (
        quality_gate.read_baseline(baseline, dataset=loaded.name, mode=mode) if baseline else None
    )
    found = invocation.run(_retrieval(invocation, loaded, wish, other))
    scores = found.modes[mode].queries
    verdict = None if before is None else quality_gate.check(before, scores, tolerance=tolerance)
    kept = {**found.as_json(mode), "settings": _settings(invocation)}
    record(invocation.settings.home, "retrieval", kept, at=invocation.clock.wall())
    if page is not None:
        _write_page(invocation, page, found, mode)
    show(invocation.output, found, mode, verdict, items=with_items)
    if verdict is not None:
        verdict.enforce()
    if save_baseline is not None:
        quality_gate.save_baseline(save_baseline, scores, dataset=found.dataset, mode=mode)
        invocation.output.note(f"baseline written to {save_baseline}")


def _other_settings(invocation: Invocation, wish: _Wish) -> RetrievalSettings:
    """Return the settings to compare with: those in force, with what ``--against`` changes."""
    from ondol.core.settings import load_settings

    for key in wish.against:
        if not key.startswith("retrieval."):
            raise click.UsageError(
                f"--against {key}: only retrieval.* can be compared on one collection; "
                "for the rest evaluate twice, each with its own --home"
            )
    settings = load_settings(
        flags={**invocation.flags, **wish.against},
        environ=invocation.environ,
        config=invocation.config,
    )
    return settings.retrieval


async def _retrieval(
    invocation: Invocation, dataset: RetrievalDataset, wish: _Wish, other: RetrievalSettings | None
) -> RetrievalEvaluation:
    from ondol.lab.evaluate.retrieval_evaluation import (
        MODES,
        RetrievalEvaluator,
        ask_all,
        collection_of,
    )

    now = invocation.clock.monotonic
    wanted = invocation.container(embedder=True, keywords=True, reranker=wish.needs_reranker())
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:

        def querying(done: int, total: int) -> None:
            shown.update(done=done, total=total, note="queries")

        async with wanted as container:
            evaluator = RetrievalEvaluator(container.ingest, container.retrieval, now=now)
            found = await evaluator.evaluate(
                dataset,
                modes=MODES if wish.all_modes else (wish.mode,),
                rerank=wish.rerank,
                ingesting=ingesting(shown),
                querying=querying,
            )
            if other is None:
                return found
            scores = await ask_all(
                container.retrieval.under(other),
                collection_of(dataset),
                dataset.queries,
                mode=wish.other_mode(),
                rerank=wish.other_rerank(),
                now=now,
                querying=querying,
            )
            return replace(found, compared=wish.mode, against=scores, changed=wish.against)


def _settings(invocation: Invocation) -> dict[str, Any]:
    """Return the settings that the figures hang on."""
    settings = invocation.settings
    sections = {"retrieval": settings.retrieval, "ingest": settings.ingest}
    found: dict[str, Any] = {"models.embedder": settings.models.embedder}
    for name, section in sections.items():
        found |= {f"{name}.{key}": value for key, value in section.model_dump(mode="json").items()}
    return found


def _write_page(
    invocation: Invocation, page: Path, found: RetrievalEvaluation, mode: SearchMode
) -> None:
    from ondol.core.errors import InvalidInput
    from ondol.lab.evaluate.html_report import html_report

    moment = datetime.fromtimestamp(invocation.clock.wall(), tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = html_report(found, mode, moment=moment, settings=_settings(invocation))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, "utf-8")
    except OSError as error:
        raise InvalidInput(
            f"{page} cannot be written: {error.strerror}", hint="name a file that can be"
        ) from None
    invocation.output.note(f"report written to {page}")

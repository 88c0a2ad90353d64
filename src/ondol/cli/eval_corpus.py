"""Judged questions and their corpus: the options that name them, and the corpus taken in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ondol.cli.progress import Meter
    from ondol.services.container import Container
    from ondol.services.ingest_report import IngestProgress, Progress


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
    from ondol.services.evaluation.datasets import load_beir
    from ondol.services.evaluation.retrieval import collection_of

    loaded = load_beir(folder)
    collection = collection_of(loaded)
    await container.ingest.ingest_paths(collection, [loaded.corpus], progress=ingesting(shown))
    return collection


def ingesting(shown: Meter) -> Progress:
    """Return what tells ``shown`` how many documents are in."""

    def show(progress: IngestProgress) -> None:
        shown.update(done=progress.documents, total=0, note="documents ingested")

    return show

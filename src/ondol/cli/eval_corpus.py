"""The corpus of a data set in a collection of its own, and the progress of getting it there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ondol.cli.progress import Meter
    from ondol.services.container import Container
    from ondol.services.ingest_report import IngestProgress, Progress


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

"""What the benchmarks of tasks share: a container with one generator, records taken in, models named."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import working_home

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.settings import load_settings

AT_ONCE = 500


def options(
    description: str | None, *, models: Sequence[str], limit: int
) -> argparse.ArgumentParser:
    """Return the options that all of them have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--home", type=Path, help="keeps what was taken in; a scratch home without")
    parser.add_argument("--models", nargs="+", default=list(models), metavar="ID")
    parser.add_argument("--limit", type=int, default=limit, help="items")
    parser.add_argument("--context", type=int, default=8192, help="tokens of one request")
    parser.add_argument("--form", default="auto", help="of the generators, as generation.form")
    parser.add_argument(
        "--at-once", type=int, default=1, help="items; above 1 latencies hold waiting"
    )
    parser.add_argument("--seed", type=int, default=6)
    return parser


def opened(args: argparse.Namespace, model: str, *, searches: bool) -> Container:
    """Return a container of ``model``, a slot with the whole context for each item, the embedder."""
    home = args.home or working_home("tasks")
    args.home = home
    settings = load_settings(
        flags={
            "home": home,
            "generation.model": model,
            "generation.form": args.form,
            "generation.slots": args.at_once,
            "lanes.batch.running": args.at_once,
            "generation.context_tokens": args.context,
            "generation.first_token_seconds": 3600.0,
            "generation.total_seconds": 3600.0,
            "tasks.max_tokens": args.context,
            "tasks.seconds": 3600.0,
        }
    )
    parts = Parts(generator=True, keywords=searches, reranker=False)
    return Container.open(settings, parts=parts)


async def take_in(
    container: Container, collection: str, records: Iterable[Mapping[str, Any]]
) -> None:
    """Ingest records of ``id``, ``text``, ``title``, ``metadata``; what is there already stays."""
    every = list(records)
    for start in range(0, len(every), AT_ONCE):
        await container.ingest.ingest_records(collection, every[start : start + AT_ONCE])


def shown(value: object) -> str:
    """Return a figure for a table."""
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)

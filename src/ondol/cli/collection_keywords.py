"""``ondol collections keywords``: the synonyms and the dictionary of one collection."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.progress import Meter, meter

if TYPE_CHECKING:
    from ondol.services.keywords import KeywordReport

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("name")
@click.option(
    "--synonyms",
    type=_FILE,
    metavar="FILE",
    help="Groups of words with one meaning: CSV, a group a line, or TOML. Replaces those known.",
)
@click.option(
    "--dictionary",
    type=_FILE,
    metavar="FILE",
    help="Words to keep whole: text, a word a line, or TOML. Replaces those known.",
)
@global_options()
@click.pass_obj
def keywords(
    invocation: Invocation, *, name: str, synonyms: Path | None, dictionary: Path | None
) -> None:
    """Give a collection synonyms and words of its own, or show how many it has.

    They are kept in the database: the files may go. Synonyms count from the next search on. Where
    the dictionary or Ondol's own rule has changed, all chunks are indexed anew; nothing is embedded.
    An empty file takes away what was given.
    """
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
        found = invocation.run(_configure(invocation, name, synonyms, dictionary, shown))
    if invocation.output.as_json:
        invocation.output.data(asdict(found))
        return
    invocation.output.table(
        ("FIELD", "VALUE"),
        [
            ("collection", found.collection),
            ("groups of synonyms", found.synonyms),
            ("words kept whole", found.dictionary),
            ("chunks", found.chunks),
            ("indexed anew", found.reindexed),
        ],
    )


async def _configure(
    invocation: Invocation,
    name: str,
    synonyms: Path | None,
    dictionary: Path | None,
    shown: Meter,
) -> KeywordReport:
    from ondol.text.dictionary import read_dictionary
    from ondol.text.synonyms import read_synonyms

    groups = None if synonyms is None else read_synonyms(synonyms)
    words = None if dictionary is None else read_dictionary(dictionary)
    async with invocation.container() as container:
        return await asyncio.to_thread(
            container.keywords.configure,
            name,
            synonyms=groups,
            dictionary=words,
            progress=lambda done, total: shown.update(
                done=done, total=total, note="indexing chunks anew"
            ),
        )

"""What one run learns from, as texts: queries, right passages, and wrong ones that search found.

Wrong passages are what the collection's own search (both legs, or keywords alone) puts before others
and nobody judged right; the very first are skipped, for among them are right ones that nobody
marked. Kept as one JSON file, so that a run that is resumed need not search again.
"""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ondol.core.types import SearchMode
from ondol.services.evaluation.datasets import Query
from ondol.services.finetuning.pieces import Piece
from ondol.services.finetuning.selfmade import MadePair
from ondol.services.retrieval import RetrievalService

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Item:
    """A query; passages are numbered as in the material: right, wrong, and not to be counted."""

    query: str
    positives: tuple[int, ...]
    negatives: tuple[int, ...] = ()
    related: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """Texts and the items over them; ``unknown`` queries named no document of the collection."""

    passages: tuple[str, ...]
    items: tuple[Item, ...]
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Mining:
    """How wrong passages are chosen: ``keep`` of those at places ``skip`` to ``depth``."""

    mode: SearchMode = "hybrid"
    skip: int = 5
    depth: int = 60
    keep: int = 20
    seed: int = 0


class MaterialMaker:
    """Makes the material of one collection from its ``pieces``."""

    def __init__(
        self,
        retrieval: RetrievalService,
        collection: str,
        pieces: Sequence[Piece],
        *,
        mining: Mining,
        told: Told | None = None,
    ) -> None:
        self._retrieval = retrieval
        self._collection = collection
        self._mining = mining
        self._told = told
        self._chance = random.Random(mining.seed)
        self._texts = [piece.text for piece in pieces]
        self._place = {piece.chunk: at for at, piece in enumerate(pieces)}
        self._of: dict[str, list[int]] = defaultdict(list)
        for at, piece in enumerate(pieces):
            self._of[piece.document].append(at)

    async def from_pairs(self, queries: Sequence[Query], made: Sequence[MadePair] = ()) -> Material:
        """Return the material of judged ``queries`` and of pairs ``made`` of the text."""
        items: list[Item] = []
        unknown = 0
        total = len(queries) + len(made)
        for query in queries:
            relevant = [d for d, gain in query.relevant.items() if gain > 0 and d in self._of]
            if relevant:
                items.append(await self._judged(query.text, relevant))
            else:
                unknown += 1
            self._tell(len(items) + unknown, total)
        for pair in made:
            items.append(await self._made(pair))
            self._tell(len(items) + unknown, total)
        return _trimmed(self._texts, items, unknown)

    async def _judged(self, query: str, relevant: Sequence[str]) -> Item:
        positives = [best_of(query, self._of[one], self._texts) for one in relevant]
        own = {at for one in relevant for at in self._of[one]}
        negatives = await self._wrong(query, own)
        return Item(query, tuple(positives), negatives, tuple(sorted(own - set(positives))))

    async def _made(self, pair: MadePair) -> Item:
        own = self._of[pair.document]
        negatives = await self._wrong(pair.query, set(own))
        self._texts.append(pair.passage)
        return Item(pair.query, (len(self._texts) - 1,), negatives, tuple(own))

    async def _wrong(self, query: str, own: set[int]) -> tuple[int, ...]:
        mining = self._mining
        found = await self._retrieval.search(
            self._collection, query, top_k=mining.depth, mode=mining.mode, rerank=False, lane=None
        )
        places = [self._place[hit.chunk] for hit in found.hits if hit.chunk in self._place]
        wrong = [at for at in places if at not in own][mining.skip :]
        return tuple(sorted(self._chance.sample(wrong, min(mining.keep, len(wrong)))))

    def _tell(self, done: int, total: int) -> None:
        if self._told is not None:
            self._told(done, total)


def best_of(query: str, places: Sequence[int], texts: Sequence[str]) -> int:
    """Return which of the passages at ``places`` shares most of the query's character pairs."""
    wanted = _pairs(query)
    return max(places, key=lambda at: (len(wanted & _pairs(texts[at])), -at))


def write_material(path: Path, material: Material) -> None:
    """Keep ``material`` in one step."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as out:
        json.dump(asdict(material), out, ensure_ascii=False)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, path)


def read_material(path: Path) -> Material | None:
    """Return what ``write_material`` kept, or ``None`` where there is none that can be read."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        items = tuple(
            Item(i["query"], *(tuple(i[k]) for k in ("positives", "negatives", "related")))
            for i in kept["items"]
        )
        return Material(tuple(kept["passages"]), items, int(kept["unknown"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trimmed(texts: Sequence[str], items: Sequence[Item], unknown: int) -> Material:
    """Keep only the passages that an item names, numbered anew."""
    used = sorted({at for i in items for at in (*i.positives, *i.negatives)})
    new = {at: number for number, at in enumerate(used)}

    def renumbered(places: Sequence[int]) -> tuple[int, ...]:
        return tuple(new[at] for at in places if at in new)

    kept = tuple(
        Item(i.query, renumbered(i.positives), renumbered(i.negatives), renumbered(i.related))
        for i in items
    )
    return Material(tuple(texts[at] for at in used), kept, unknown)


def _pairs(text: str) -> set[str]:
    squeezed = "".join(text.split()).lower()
    return {squeezed[at : at + 2] for at in range(len(squeezed) - 1)}

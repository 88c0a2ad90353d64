"""Which query belongs to which documents: read from disk, split, and kept apart.

Pairs are JSON lines, ``{"query": …, "documents": [ids]}`` (``question`` and ``document`` are read too;
the same query on several lines is one, as in a log of clicks), or a BEIR folder. The split hangs on a
query's text and the seed alone. Pure but for reading.

What one run learns from, as texts: queries, right passages, and wrong ones that search found.

Wrong passages are what the collection's own search (both legs, or keywords alone) puts before others
and nobody judged right; the very first are skipped, for among them are right ones that nobody
marked. Kept as one JSON file, so that a run that is resumed need not search again.

Pairs made of the text alone, where nobody has asked anything yet.

A title asks for its passage, a heading for its own, and a sentence for the passage it was taken out
of (the inverse cloze task: Lee, Chang & Toutanova, ACL 2019, arXiv:1906.00300). Pure; the seed
decides what is drawn.

The passages of a collection as its embedder reads them, document by document.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput
from ondol.core.types import OnProgress, Passage, ReadDocument, SearchMode
from ondol.documents.chunking.index_words import indexed_text
from ondol.lab.evaluate.datasets import Query, load_beir, read_jsonl
from ondol.language.sentences import split_sentences
from ondol.search.retrieval import RetrievalService
from ondol.store.collection_words import KeywordStore
from ondol.store.documents import DocumentStore

LEAST_HELD_BACK = 20
"""Fewer questions than this cannot tell a better model from a worse one."""

_SHINGLE = 8
_COPIED = 0.5


@dataclass(frozen=True, slots=True)
class Split:
    """Queries to train on and queries to judge by; ``overlapping`` were in the first and left out."""

    training: tuple[Query, ...]
    held_back: tuple[Query, ...]
    overlapping: int = 0


def read_pairs(path: Path) -> list[Query]:
    """Read one file or folder of pairs; raises ``InvalidInput`` or ``NotFound`` naming the line."""
    if path.is_dir():
        return list(load_beir(path).queries)
    merged: dict[str, dict[str, float]] = {}
    ids: dict[str, str] = {}
    for number, row in enumerate(read_jsonl(path, required=()), start=1):
        text = str(row.get("query") or row.get("question") or "").strip()
        documents = _documents(row)
        if not text or not documents:
            raise InvalidInput(
                f"{path} line {number} has no {'documents' if text else 'query'}",
                hint='each line is {"query": "…", "documents": ["…"]}',
            )
        merged.setdefault(text, {}).update(dict.fromkeys(documents, 1.0))
        ids.setdefault(text, str(row.get("id", f"{path.name}:{number}")))
    return [Query(ids[text], text, relevant) for text, relevant in merged.items()]


def split(queries: Sequence[Query], *, share: float, seed: int) -> Split:
    """Hold back about ``share`` of the queries, always the same ones for the same texts and seed.

    Queries of one text go to one side together. Raises ``InvalidInput`` where too few are left.
    """
    held = [q for q in queries if in_share(q.text, share=share, seed=seed)]
    rest = [q for q in queries if not in_share(q.text, share=share, seed=seed)]
    return apart(rest, held)


def apart(training: Sequence[Query], held_back: Sequence[Query], *, others: int = 0) -> Split:
    """Return both, without training queries that hold half or more of a held-back one's wording.

    ``others`` is how many pairs there are besides to train on. Raises ``InvalidInput`` where fewer than ``LEAST_HELD_BACK`` judge or none is left to train on.
    """
    copied = _copies(training, held_back)
    kept = tuple(q for at, q in enumerate(training) if at not in copied)
    if len(held_back) < LEAST_HELD_BACK:
        raise InvalidInput(
            f"{len(held_back)} queries are held back to judge by; {LEAST_HELD_BACK} are needed",
            hint="give more pairs, a larger --share, or a file of its own with --judge",
        )
    if not kept and not others:
        raise InvalidInput(
            "no pair is left to train on", hint="give more pairs, or train on the text: --from-text"
        )
    return Split(kept, tuple(held_back), len(copied))


def in_share(text: str, *, share: float, seed: int) -> bool:
    """Whether ``text`` is among the share that is held back; the same for the same seed."""
    digest = hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def digest_of(queries: Sequence[Query]) -> str:
    """Return 16 hex digits over texts and judgements, whatever their order."""
    lines = sorted(f"{q.text}\t{sorted(q.relevant.items())}" for q in queries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _copies(training: Sequence[Query], held_back: Sequence[Query]) -> set[int]:
    where: dict[str, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for at, query in enumerate(held_back):
        parts = set(_shingles(query.text))
        sizes.append(len(parts))
        for part in parts:
            where[part].append(at)
    found = set()
    for at, query in enumerate(training):
        shared = Counter(i for part in set(_shingles(query.text)) for i in where.get(part, ()))
        if any(count >= _COPIED * sizes[i] for i, count in shared.items()):
            found.add(at)
    return found


def _shingles(text: str) -> Iterator[str]:
    squeezed = "".join(text.split()).lower()
    for start in range(max(1, len(squeezed) - _SHINGLE + 1)):
        yield squeezed[start : start + _SHINGLE]


def _documents(row: Any) -> list[str]:
    documents = row.get("documents") or row.get("document") or []
    return [documents] if isinstance(documents, str) else [str(one) for one in documents]


_DOCUMENTS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A stored chunk: its id, its document's public name, title and heading, and what is embedded."""

    chunk: int
    document: str
    title: str
    heading: str
    bare: str
    text: str


def pieces_of(store: DocumentStore, collection: str) -> Iterator[TextPiece]:
    """Yield every chunk of ``collection``, documents by name; raises ``NotFound``."""
    after: str | None = None
    while page := store.documents(collection, limit=_DOCUMENTS_AT_ONCE, after=after):
        for listed in page:
            stored = store.document(collection, listed.document)
            document = ReadDocument(
                source=stored.source,
                title=stored.title,
                text=stored.text,
                pages=stored.pages,
                metadata=stored.metadata,
                media_type=stored.media_type,
            )
            for row in KeywordStore(store.database).chunks(collection, listed.document):
                passage = Passage(row.text, row.start, row.end, row.page, row.heading)
                yield TextPiece(
                    chunk=row.chunk,
                    document=listed.document,
                    title=stored.title,
                    heading=row.heading,
                    bare=row.text,
                    text=indexed_text(document, passage),
                )
        after = page[-1].document


_LEAST, _MOST = 15, 200
_STAYS = 0.1  # share of clozes whose sentence stays, so that shared words still count


@dataclass(frozen=True, slots=True)
class MadePair:
    """A query, the text that answers it, and the document both are from."""

    query: str
    passage: str
    document: str


def made_pairs(pieces: Sequence[TextPiece], *, limit: int, seed: int) -> list[MadePair]:
    """Return up to ``limit`` pairs, drawn evenly over ``pieces``; at most two from each."""
    chance = random.Random(seed)
    titles = Counter(piece.title for piece in {p.document: p for p in pieces}.values())
    found: list[MadePair] = []
    for piece in chance.sample(list(pieces), len(pieces)):
        if len(found) >= limit:
            break
        name = piece.heading.rpartition(" > ")[2] or (
            piece.title if titles[piece.title] == 1 else ""
        )
        if 4 <= len(name) <= _MOST and name not in piece.bare[: len(name) + 4]:
            found.append(MadePair(name, piece.bare, piece.document))
        cloze = _cloze(piece, chance)
        if cloze is not None:
            found.append(cloze)
    return found[:limit]


def _cloze(piece: TextPiece, chance: random.Random) -> MadePair | None:
    spans = split_sentences(piece.bare)
    fit = [(start, end) for start, end in spans if _LEAST <= end - start <= _MOST]
    if len(spans) < 3 or not fit:
        return None
    start, end = chance.choice(fit)
    rest = piece.bare if chance.random() < _STAYS else piece.bare[:start] + piece.bare[end:]
    if piece.title:
        rest = f"{piece.title}\n{rest}"
    return MadePair(piece.bare[start:end].strip(), rest, piece.document)


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """A query; passages are numbered as in the material: right, wrong, and not to be counted."""

    query: str
    positives: tuple[int, ...]
    negatives: tuple[int, ...] = ()
    related: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """Texts and the items over them; ``unknown`` queries named no document of the collection."""

    passages: tuple[str, ...]
    items: tuple[TrainingItem, ...]
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
        pieces: Sequence[TextPiece],
        *,
        mining: Mining,
        told: OnProgress | None = None,
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

    async def from_pairs(
        self, queries: Sequence[Query], made: Sequence[MadePair] = ()
    ) -> TrainingMaterial:
        """Return the material of judged ``queries`` and of pairs ``made`` of the text."""
        items: list[TrainingItem] = []
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

    async def _judged(self, query: str, relevant: Sequence[str]) -> TrainingItem:
        positives = [best_of(query, self._of[one], self._texts) for one in relevant]
        own = {at for one in relevant for at in self._of[one]}
        negatives = await self._wrong(query, own)
        return TrainingItem(query, tuple(positives), negatives, tuple(sorted(own - set(positives))))

    async def _made(self, pair: MadePair) -> TrainingItem:
        own = self._of[pair.document]
        negatives = await self._wrong(pair.query, set(own))
        self._texts.append(pair.passage)
        return TrainingItem(pair.query, (len(self._texts) - 1,), negatives, tuple(own))

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


def write_material(path: Path, material: TrainingMaterial) -> None:
    """Keep ``material`` in one step."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as out:
        json.dump(asdict(material), out, ensure_ascii=False)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, path)


def read_material(path: Path) -> TrainingMaterial | None:
    """Return what ``write_material`` kept, or ``None`` where there is none that can be read."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        items = tuple(
            TrainingItem(i["query"], *(tuple(i[k]) for k in ("positives", "negatives", "related")))
            for i in kept["items"]
        )
        return TrainingMaterial(tuple(kept["passages"]), items, int(kept["unknown"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trimmed(texts: Sequence[str], items: Sequence[TrainingItem], unknown: int) -> TrainingMaterial:
    """Keep only the passages that an item names, numbered anew."""
    used = sorted({at for i in items for at in (*i.positives, *i.negatives)})
    new = {at: number for number, at in enumerate(used)}

    def renumbered(places: Sequence[int]) -> tuple[int, ...]:
        return tuple(new[at] for at in places if at in new)

    kept = tuple(
        TrainingItem(
            i.query, renumbered(i.positives), renumbered(i.negatives), renumbered(i.related)
        )
        for i in items
    )
    return TrainingMaterial(tuple(texts[at] for at in used), kept, unknown)


def _pairs(text: str) -> set[str]:
    squeezed = "".join(text.split()).lower()
    return {squeezed[at : at + 2] for at in range(len(squeezed) - 1)}

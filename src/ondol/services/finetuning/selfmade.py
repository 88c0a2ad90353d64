"""Pairs made of the text alone, where nobody has asked anything yet.

A title asks for its passage, a heading for its own, and a sentence for the passage it was taken out
of (the inverse cloze task: Lee, Chang & Toutanova, ACL 2019, arXiv:1906.00300). Pure; the seed
decides what is drawn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ondol.services.finetuning.pieces import Piece
from ondol.text.sentences import split_sentences

_LEAST, _MOST = 15, 200
_STAYS = 0.1  # share of clozes whose sentence stays, so that shared words still count


@dataclass(frozen=True, slots=True)
class MadePair:
    """A query, the text that answers it, and the document both are from."""

    query: str
    passage: str
    document: str


def made_pairs(pieces: Sequence[Piece], *, limit: int, seed: int) -> list[MadePair]:
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


def _cloze(piece: Piece, chance: random.Random) -> MadePair | None:
    spans = split_sentences(piece.bare)
    fit = [(start, end) for start, end in spans if _LEAST <= end - start <= _MOST]
    if len(spans) < 3 or not fit:
        return None
    start, end = chance.choice(fit)
    rest = piece.bare if chance.random() < _STAYS else piece.bare[:start] + piece.bare[end:]
    if piece.title:
        rest = f"{piece.title}\n{rest}"
    return MadePair(piece.bare[start:end].strip(), rest, piece.document)

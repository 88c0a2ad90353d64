"""Which query belongs to which documents: read from disk, split, and kept apart.

Pairs are JSON lines, ``{"query": …, "documents": [ids]}`` (``question`` and ``document`` are read too;
the same query on several lines is one, as in a log of clicks), or a BEIR folder. The split hangs on a
query's text and the seed alone. Pure but for reading.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput
from ondol.services.evaluation.datasets import Query, load_beir, read_jsonl

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

"""Find the small, read the large: each hit widened to what stands around it in its parent.

A window is a run of neighbouring chunks of one parent, so it begins and ends where they do; its text
is exactly ``[start, end)`` of the document. Windows of one document never overlap: hits within one
collapse into the best of them. Scores and order stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ondol.core.types import Hit, Page
from ondol.store.documents import DocumentStore
from ondol.store.passages import Neighbour

DEPTH = 3
"""Hits looked at for each one wanted, because neighbours collapse into one."""


async def read_parents(
    store: DocumentStore, collection: str, hits: Sequence[Hit], *, chars: int
) -> list[Hit]:
    """Return ``hits`` (best first) with text, start, end and page of windows of at most ``chars``.

    A hit that is longer already, or has no parent, stays as it is.
    """
    if not hits:
        return []
    near = await asyncio.to_thread(store.passages.siblings, collection, [hit.chunk for hit in hits])
    windows = collapsed(hits, near, chars=chars)
    spans = [(hit.document, run[0].start, run[-1].end) for hit, run in windows]
    texts = await asyncio.to_thread(store.passages.texts, collection, spans)
    return [
        _widened(hit, run, text) if len(text) == run[-1].end - run[0].start else hit
        for (hit, run), text in zip(windows, texts, strict=True)
    ]


def collapsed(
    hits: Sequence[Hit], near: dict[int, list[Neighbour]], *, chars: int
) -> list[tuple[Hit, list[Neighbour]]]:
    """Return the hits that stay, each with the run of chunks to read, no two of which overlap.

    ``near`` holds, by chunk, its neighbours in the order of the text, itself included.
    """
    taken: dict[str, list[tuple[int, int]]] = {}
    kept: list[tuple[Hit, list[Neighbour]]] = []
    for hit in hits:
        spans = taken.setdefault(hit.document, [])
        if any(start <= hit.start and hit.end <= end for start, end in spans):
            continue
        own = Neighbour(hit.start, hit.end, hit.page)
        run = window(own, near.get(hit.chunk, []), chars=chars, taken=spans)
        spans.append((run[0].start, run[-1].end))
        kept.append((hit, run))
    return kept


def window(
    own: Neighbour,
    near: Sequence[Neighbour],
    *,
    chars: int,
    taken: Sequence[tuple[int, int]] = (),
) -> list[Neighbour]:
    """Return the longest run of ``near`` around ``own`` within ``chars`` that enters no ``taken``.

    It grows by turns, what follows first: a rule comes before its exceptions.
    """
    at = next((n for n, one in enumerate(near) if one == own), None)
    if at is None:
        return [own]
    first = last = at
    growing = [True, True]
    while any(growing):
        for back in (False, True):
            low, high = (first - 1, last) if back else (first, last + 1)
            if not growing[back]:
                continue
            fits = low >= 0 and high < len(near) and near[high].end - near[low].start <= chars
            if fits and _free(near[low].start, near[high].end, own, taken):
                first, last = low, high
            else:
                growing[back] = False
    return list(near[first : last + 1])


def _free(start: int, end: int, own: Neighbour, taken: Sequence[tuple[int, int]]) -> bool:
    """Whether ``[start, end)`` meets no taken range more than ``own`` itself does."""
    return all(
        _shared(start, end, low, high) <= _shared(own.start, own.end, low, high)
        for low, high in taken
    )


def _shared(start: int, end: int, low: int, high: int) -> int:
    return max(0, min(end, high) - max(start, low))


def _widened(hit: Hit, run: Sequence[Neighbour], text: str) -> Hit:
    pages = tuple(Page(one.page, one.start, one.end) for one in run if one.page is not None)
    return replace(
        hit, start=run[0].start, end=run[-1].end, page=run[0].page, text=text, pages=pages
    )

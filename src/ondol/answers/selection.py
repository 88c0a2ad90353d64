"""Which sentences go before the generator: best first, whole, within a token budget.

Pure functions of scored sentences; knows no model. Later selections (representatives, MMR) belong
here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ondol.core.types import Hit


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a hit: offsets into ``hit.text``, its score and its estimated tokens."""

    hit: int
    start: int
    end: int
    score: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What of one hit is shown to the generator: ``spans`` are offsets into ``hit.text``."""

    hit: Hit
    spans: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """The chosen sentences, gaps marked by an ellipsis."""
        parts: list[str] = []
        last = None
        for start, end in self.spans:
            if last is not None:
                gap = self.hit.text[last:start]
                parts.append(" " if not gap.strip() else " … ")
            parts.append(" ".join(self.hit.text[start:end].split()))
            last = end
        return "".join(parts)


def estimate_tokens(text: str) -> int:
    """Estimate generator tokens: about one per Hangul syllable, a third per Latin letter.

    Measured on Qwen2.5's tokenizer over Korean statutes and English abstracts; errs high.
    """
    wide = sum(1 for char in text if ord(char) > 0x2E80)
    return int(wide * 0.95 + (len(text) - wide) * 0.33) + 1


def pack(
    hits: Sequence[Hit],
    sentences: Sequence[Sentence],
    *,
    budget: int,
    max_excerpts: int,
    overhead: int = 24,
) -> list[Excerpt]:
    """Choose sentences by score until ``budget`` tokens are used; best excerpt first.

    A chosen sentence brings its neighbours along while they fit (the sentence before names the
    subject, the one after the exception). ``overhead`` tokens are counted per excerpt for its label. At
    least one sentence is chosen when there is any.
    """
    by_place = {(s.hit, s.start): s for s in sentences}
    places = sorted(by_place)
    chosen: dict[int, list[Sentence]] = {}
    used = 0
    for sentence in sorted(sentences, key=lambda s: (-s.score, s.hit, s.start)):
        mine = chosen.get(sentence.hit)
        if mine is None and len(chosen) >= max_excerpts:
            continue
        cost = sentence.tokens + (overhead if mine is None else 0)
        if (mine is not None and sentence in mine) or (used + cost > budget and used):
            continue
        used += cost
        group = chosen.setdefault(sentence.hit, [])
        group.append(sentence)
        at = places.index((sentence.hit, sentence.start))
        for near in (at - 1, at + 1):
            if 0 <= near < len(places) and places[near][0] == sentence.hit:
                neighbour = by_place[places[near]]
                if neighbour not in group and used + neighbour.tokens <= budget:
                    group.append(neighbour)
                    used += neighbour.tokens
    return [
        Excerpt(hit=hits[hit], spans=tuple(sorted((s.start, s.end) for s in group)))
        for hit, group in chosen.items()
    ]

"""Fills passages with whole sentences up to a target, breaking at the strongest joint it can.

A joint is the gap between two sentences; how strong it is, the caller says (0 for none). Offsets
are into the text given. Linear in its length; knows no headings and no kind of document.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

Span = tuple[int, int]
Joint = Callable[[str, int, int], int]
"""Strength of the gap ``[end, start)`` between two sentences of a text."""

SLACK = 1.5
"""A passage may grow to this many targets rather than leave a short rest behind."""

OWN = 2
"""Strength from which on a joint parts what belongs apart: nothing is repeated across it."""


def blank_line(text: str, end: int, start: int) -> int:
    """Return 1 where a blank line stands between two sentences, else 0."""
    return int("\n\n" in text[end:start])


class Packer:
    """One text being packed: target and overlap in characters, and what its joints are."""

    def __init__(self, text: str, *, target: int, overlap: int, joint: Joint = blank_line) -> None:
        self._text = text
        self._target = target
        self._overlap = overlap
        self._joint = joint

    def pack(self, sentences: Sequence[Span], *, whole: int = 0) -> list[Span]:
        """Return the passages of neighbouring ``sentences``; up to ``whole`` characters are one.

        Every other passage holds at most twice the target; a sentence longer than that is cut.
        """
        if sentences and sentences[-1][1] - sentences[0][0] <= whole:
            return [(sentences[0][0], sentences[-1][1])]
        packed: list[Span] = []
        held: list[Span] = []
        for sentence in self._fitting(sentences):
            while held and sentence[1] - held[0][0] > self._target:
                keep = self._break(held, sentence, after=packed[-1][1] if packed else 0)
                packed.append((held[0][0], held[keep - 1][1]))
                held = held[keep:] or self._repeated(held, sentence)
            held.append(sentence)
        if held:
            self._finish(packed, (held[0][0], held[-1][1]))
        return packed

    def _break(self, held: Sequence[Span], coming: Span, *, after: int) -> int:
        """Return how many sentences to keep: up to the strongest joint past half the target.

        Of equal ones the last. A passage must reach past ``after``, where the one before it ended.
        """
        best = self._joint(self._text, held[-1][1], coming[0])
        keep = len(held)
        for i in range(len(held) - 1, 0, -1):
            end = held[i - 1][1]
            if end - held[0][0] < self._target // 2 or end <= after:
                break
            strength = self._joint(self._text, end, held[i][0])
            if strength > best:
                best, keep = strength, i
        return keep

    def _repeated(self, held: Sequence[Span], coming: Span) -> list[Span]:
        """Return the closing sentences of a full passage that the next one repeats."""
        end = held[-1][1]
        repeated: list[Span] = []
        if self._joint(self._text, end, coming[0]) >= OWN:
            return repeated
        for sentence in reversed(held[1:]):
            if end - sentence[0] > self._overlap or coming[1] - sentence[0] > self._target:
                break
            repeated.insert(0, sentence)
        return repeated

    def _finish(self, packed: list[Span], last: Span) -> None:
        """Add the last passage; a short one goes to its neighbour where there is room."""
        if packed and last[1] - last[0] < self._target // 4:
            start = packed[-1][0]
            if last[1] - start <= SLACK * self._target:
                packed[-1] = (start, last[1])
                return
        packed.append(last)

    def _fitting(self, sentences: Sequence[Span]) -> Iterator[Span]:
        """Yield sentences, those above twice the target cut at line breaks or spaces."""
        for start, end in sentences:
            if end - start <= 2 * self._target:
                yield start, end
            else:
                yield from self._cut(start, end)

    def _cut(self, start: int, end: int) -> Iterator[Span]:
        while end - start > self._target:
            stop = self._cut_at(start)
            yield start, len(self._text[start:stop].rstrip()) + start
            start = stop
            while self._text[start].isspace():
                start += 1
        yield start, end

    def _cut_at(self, start: int) -> int:
        limit = start + self._target
        floor = start + max(1, self._target // 2)
        newline = self._text.rfind("\n", floor, limit)
        if newline > 0:
            return newline
        for i in range(limit - 1, floor, -1):
            if self._text[i].isspace():
                return i
        while limit > floor and unicodedata.combining(self._text[limit]):
            limit -= 1
        return limit

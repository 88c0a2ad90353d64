"""Long prompts of bulk work read piece by piece, so that people wait for a piece and not for the prompt.

A prompt that is being read cannot be put aside, and prompts are read one at a time. While people ask,
the beginnings of a bulk prompt are therefore read as requests of their own, each a little longer than
the last, and who came meanwhile goes in between; the generator keeps what it has read. That costs a
token a piece, and nothing while nobody asks. Pure but for the last arrival. After chunked prefill
(Agrawal et al. 2024, Sarathi-Serve).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ondol.core.types import GenerationRequest

PIECE_SECONDS = 0.2
"""What somebody may have to wait for one piece, beside his own prompt."""
ATTENTIVE_SECONDS = 15.0
"""So long after the last request of a person another is expected."""
MOST_PIECES = 32


class Reading:
    """Knows when a person last asked."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")

    def asked(self, now: float) -> None:
        """Note that a person has asked, at ``now`` in the clock's seconds."""
        self._asked_at = now

    def expects(self, now: float) -> bool:
        """Return whether a person may ask soon."""
        return now - self._asked_at <= ATTENTIVE_SECONDS


def pieces(request: GenerationRequest, *, prefill: float) -> Iterator[GenerationRequest]:
    """Yield the beginnings of ``request`` to read before it; ``prefill`` seconds are its whole."""
    if not request.messages:
        return
    *before, last = request.messages
    count = min(math.ceil(prefill / PIECE_SECONDS), MOST_PIECES, len(last.content))
    for number in range(1, count):
        part = replace(last, content=last.content[: len(last.content) * number // count])
        yield replace(request, messages=(*before, part), max_tokens=1, json_schema=None)

"""What the services see of an encoder in service: what it is, and a place to send items to.

A ``Batcher`` behind a fixed encoder, a slot that loads and swaps its encoder, a pair of slots by
purpose: all are lanes. Knows no model library and no load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ondol.backends.protocols import EncoderSpec
from ondol.core.events import Timing
from ondol.core.types import Encoded, Pair
from ondol.runtime.encoders.batcher import BatchResult


class EncoderLane(Protocol):
    """Runs items for many callers.

    ``spec`` is what would answer now; the result's ``spec`` is what did, where that can change.
    ``submit`` behaves as ``Batcher.submit`` does; ``urgent=False`` is bulk work.
    """

    @property
    def spec(self) -> EncoderSpec: ...
    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult: ...

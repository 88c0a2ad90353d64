"""An A/B trial: a candidate that gets a share of a lane's requests, beside or instead of the model.

``shadow`` runs the candidate after the answer has left, one request at a time, in the bulk lane of a
slot of its own; what does not fit the small queue is dropped. ``split`` lets the candidate answer;
where it cannot, the model in service does. Neither can fail a request that would have succeeded.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import BackendError, OndolError
from ondol.core.events import CandidateCompared, Observer, Timing
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.runtime.encoders.batcher import BatchResult
from ondol.runtime.encoders.comparison import Comparison
from ondol.runtime.encoders.encoder_lane import EncoderLane
from ondol.runtime.encoders.encoder_slot import EncoderSlot
from ondol.runtime.encoders.isolation import Value
from ondol.runtime.slot import SlotState

_log = logging.getLogger("ondol.trial")

SHADOWS = 16
"""Most requests that wait to be shadowed."""

SHADOW_ITEMS = 32
"""Most items of one request that are shadowed; the first so many."""

Item = str | Pair | Encoded
Outcome = Literal["shadowed", "answered", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class _Shadow:
    items: Sequence[Item]
    truncate: bool
    values: Sequence[Value]
    primary_ms: float | None


class AbTest:
    """Routes requests between a primary lane and a candidate, and compares them.

    ``same_tokens`` says that both read the same token ids; ``measure`` how answers are compared. A
    split never waits for the candidate to load.
    """

    def __init__(
        self,
        candidate: EncoderSlot,
        *,
        name: str,
        component: Literal["embedder", "reranker"],
        mode: Literal["shadow", "split"],
        share: float,
        same_tokens: bool,
        measure: Literal["cosine", "kendall_tau"] | None,
        observer: Observer,
    ) -> None:
        self._candidate = candidate
        self._name = name
        self._component = component
        self._mode = mode
        self._share = share
        self._same_tokens = same_tokens
        self._measure = measure
        self._observer = observer
        self.comparison = Comparison(measure)
        self._waiting: asyncio.Queue[_Shadow] = asyncio.Queue(maxsize=SHADOWS)
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take shadows."""
        if self._mode == "shadow" and self._worker is None:
            self._worker = asyncio.create_task(self._shadows(), name="ondol-shadow")

    async def close(self) -> None:
        """Stop; what waits is dropped. The candidate's lane is its owner's to close."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def idle(self) -> None:
        """Wait until every shadow that was taken has been compared."""
        await self._waiting.join()

    async def submit(
        self,
        primary: EncoderLane,
        items: Sequence[Item],
        *,
        truncate: bool,
        urgent: bool,
        timing: Timing | None,
    ) -> BatchResult:
        """Answer ``items`` as ``primary.submit`` would, and compare where the share says so."""
        chosen = self._takes(items)
        if chosen and self._mode == "split":
            answered = await self._answered(items, truncate=truncate, urgent=urgent, timing=timing)
            if answered is not None:
                return answered
        own = Timing()
        try:
            result = await primary.submit(items, truncate=truncate, urgent=urgent, timing=own)
        finally:
            _add(timing, own)
        if chosen and self._mode == "shadow":
            self._shadow(items, result, truncate=truncate, timing=own)
        elif not chosen and self._mode == "split" and not own.cached_items:
            self.comparison.primary(_work(own))
        return result

    def _takes(self, items: Sequence[Item]) -> bool:
        foreign = not self._same_tokens and any(isinstance(item, Encoded) for item in items)
        return bool(items) and not foreign and in_share(items, share=self._share)

    async def _answered(
        self, items: Sequence[Item], *, truncate: bool, urgent: bool, timing: Timing | None
    ) -> BatchResult | None:
        if self._candidate.state is not SlotState.READY:
            self.comparison.dropped += 1
            self._say("dropped")
            return None
        own = Timing()
        try:
            result = await self._candidate.submit(
                items, truncate=truncate, urgent=urgent, timing=own
            )
        except OndolError as error:
            self._failed(error)
            return None
        broken = next((v for v in result.values if isinstance(v, BackendError)), None)
        if broken is not None:
            self._failed(broken)
            return None
        _add(timing, own)
        self.comparison.candidate(_work(own))
        self._say("answered", candidate_ms=_work(own))
        return result

    def _shadow(
        self, items: Sequence[Item], result: BatchResult, *, truncate: bool, timing: Timing
    ) -> None:
        first = slice(0, SHADOW_ITEMS)
        # Times are compared only of the same work: not of a cut request, nor of one from a cache.
        alike = len(items) <= SHADOW_ITEMS and not timing.cached_items
        shadow = _Shadow(
            items[first], truncate, result.values[first], _work(timing) if alike else None
        )
        try:
            self._waiting.put_nowait(shadow)
        except asyncio.QueueFull:
            self.comparison.dropped += 1
            self._say("dropped")

    async def _shadows(self) -> None:
        while True:
            shadow = await self._waiting.get()
            try:
                await self._compare(shadow)
            except OndolError as error:
                self._failed(error)
            except Exception as error:
                _log.exception("comparing with %s failed", self._name)
                self._failed(error)
            finally:
                self._waiting.task_done()

    async def _compare(self, shadow: _Shadow) -> None:
        own = Timing()
        result = await self._candidate.submit(
            shadow.items, truncate=shadow.truncate, urgent=False, timing=own
        )
        pairs = [
            (ours, theirs)
            for ours, theirs in zip(shadow.values, result.values, strict=True)
            if not isinstance(ours, OndolError)
        ]
        broken = next((v for _, v in pairs if isinstance(v, OndolError)), None)
        if broken is not None:
            raise broken
        taken = None if shadow.primary_ms is None else _work(own)
        if shadow.primary_ms is not None:
            self.comparison.primary(shadow.primary_ms)
            self.comparison.candidate(_work(own))
        agreement = self._agreement(cast("list[tuple[_Row, _Row]]", pairs))
        self._say(
            "shadowed",
            primary_ms=shadow.primary_ms,
            candidate_ms=taken,
            agreement=agreement,
        )

    def _agreement(self, pairs: Sequence[tuple[_Row, _Row]]) -> float | None:
        if self._measure is None or not pairs:
            return None
        ours: FloatMatrix = np.stack([row for row, _ in pairs])
        theirs: FloatMatrix = np.stack([row for _, row in pairs])
        if self._measure == "cosine":
            return self.comparison.vectors(ours, theirs)
        return self.comparison.ranking(ours[:, 0].tolist(), theirs[:, 0].tolist())

    def _failed(self, error: Exception) -> None:
        self.comparison.errors += 1
        _log.debug("the candidate %s failed: %s", self._name, error)
        self._say("failed")

    def _say(
        self,
        outcome: Outcome,
        *,
        primary_ms: float | None = None,
        candidate_ms: float | None = None,
        agreement: float | None = None,
    ) -> None:
        self._observer.observe(
            CandidateCompared(
                component=self._component,
                candidate=self._name,
                outcome=outcome,
                primary_seconds=None if primary_ms is None else primary_ms / 1e3,
                candidate_seconds=None if candidate_ms is None else candidate_ms / 1e3,
                agreement=agreement,
            )
        )


_Row = NDArray[np.float32]


def in_share(items: Sequence[Item], *, share: float) -> bool:
    """Whether the request of ``items`` is in the share: by its content's hash, so always alike."""
    digest = hashlib.blake2b(digest_size=8)
    for item in items:
        digest.update(repr(item).encode("utf-8", "backslashreplace"))
    return int.from_bytes(digest.digest(), "big") < share * 2**64


def _work(timing: Timing) -> float:
    return timing.tokenize_ms + timing.inference_ms


def _add(timing: Timing | None, own: Timing) -> None:
    if timing is not None:
        timing.queue_ms += own.queue_ms
        timing.tokenize_ms += own.tokenize_ms
        timing.inference_ms += own.inference_ms
        timing.cached_items += own.cached_items

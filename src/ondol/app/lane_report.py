"""Every lane as it is now, whoever serves it: the generator, the searches, the encoders."""

from __future__ import annotations

from collections.abc import Mapping

from ondol.core.lane_state import LaneSnapshot, QueueSnapshot
from ondol.core.settings.lane_sections import LANES, LanesSettings
from ondol.runtime.encoders.encoder_group import EncoderGroup
from ondol.runtime.generation.generator_slot import GeneratorSlot

_ENCODERS = {"embedder": "embeddings", "reranker": "rerank"}


def lane_report(
    settings: LanesSettings,
    *,
    generator: GeneratorSlot | None,
    searches: LaneSnapshot,
    encoders: Mapping[str, EncoderGroup],
) -> dict[str, LaneSnapshot]:
    """Return each lane's state; a lane that nobody serves yet is empty."""
    now: QueueSnapshot | None = generator.snapshot() if generator is not None else None
    found = {name: now.lanes[name] if now is not None else _empty(settings, name) for name in LANES}
    found["search"] = _together(found["search"], searches)
    for component, group in encoders.items():
        found[_ENCODERS[component]] = _of_encoder(group)
    return found


def _empty(settings: LanesSettings, name: str) -> LaneSnapshot:
    rules = settings.lane(name)
    return LaneSnapshot(
        depth=0,
        running=0,
        queue=rules.queue,
        limit=rules.running,
        oldest_seconds=0.0,
        wait_seconds=0.0,
        retry_after=1.0,
        rejected={},
    )


def _together(generated: LaneSnapshot, searched: LaneSnapshot) -> LaneSnapshot:
    """Return both users of one lane: what is generated for it, and searches."""
    codes = {*generated.rejected, *searched.rejected}
    return LaneSnapshot(
        depth=generated.depth + searched.depth,
        running=generated.running + searched.running,
        queue=searched.queue,
        limit=searched.limit,
        oldest_seconds=max(generated.oldest_seconds, searched.oldest_seconds),
        wait_seconds=searched.wait_seconds,
        retry_after=searched.retry_after,
        rejected={
            code: generated.rejected.get(code, 0) + searched.rejected.get(code, 0)
            for code in sorted(codes)
        },
    )


def _of_encoder(group: EncoderGroup) -> LaneSnapshot:
    """Requests that are in an encoder run or wait in its batches; what waits is told apart by items."""
    inside = group.depth
    waiting = min(inside, group.waiting)
    return LaneSnapshot(
        depth=waiting,
        running=inside - waiting,
        queue=group.capacity,
        limit=group.largest_batch,
        oldest_seconds=0.0,
        wait_seconds=group.backlog_seconds,
        retry_after=max(1.0, group.backlog_seconds),
        rejected={},
    )

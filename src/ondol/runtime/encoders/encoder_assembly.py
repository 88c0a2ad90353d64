"""Puts one component's encoders together from the settings: queue, batch limits, A/B candidate."""

from __future__ import annotations

from collections.abc import Callable

from ondol.core.settings import Settings
from ondol.runtime.backend_factory import BackendFactory, Component
from ondol.runtime.encoders.batcher import BatcherLimits
from ondol.runtime.encoders.batching import MemoryLimits
from ondol.runtime.encoders.encoder_group import EncoderEnvironment, EncoderGroup
from ondol.runtime.encoders.encoder_lane import EncoderLane


def assemble(
    component: Component,
    *,
    settings: Settings,
    backends: BackendFactory,
    shared: EncoderEnvironment,
    front: Callable[[EncoderLane], EncoderLane] | None = None,
) -> EncoderGroup:
    """Return the component's group, with nothing loaded yet; ``front`` goes before each encoder."""
    lanes, ab = settings.lanes, settings.ab
    lane = lanes.embeddings if component == "embedder" else lanes.rerank
    tried = bool(ab.candidate) and ab.component == component
    return EncoderGroup(
        component,
        backends.encoder(component),
        settings=settings.models,
        limits=BatcherLimits(
            token_budget=settings.models.token_budget,
            max_batch=settings.models.max_batch,
            queue_requests=lane.queue,
            queue_seconds=lane.queue_seconds,
            memory=MemoryLimits(
                low_mb=settings.models.memory_low_mb, tight_mb=settings.models.memory_tight_mb
            ),
        ),
        shared=shared,
        candidate=backends.candidate() if tried else None,
        ab=ab,
        front=front,
    )

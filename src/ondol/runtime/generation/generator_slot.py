"""The one generator of a process: a ``Slot`` over the engine in front of the backend loaded now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from ondol.backends.protocols import GeneratorHealth, Preloading
from ondol.core.clock import Clock
from ondol.core.events import Observer, Timing
from ondol.core.lane_state import QueueSnapshot
from ondol.core.request_terms import RequestTerms
from ondol.core.settings import Settings
from ondol.core.timers import Timers
from ondol.core.types import GenerationEvent, GenerationRequest, Message
from ondol.runtime.backend_factory import BackendFactory
from ondol.runtime.generation.generation import GenerationEngine
from ondol.runtime.generation.policy import policy_of
from ondol.runtime.generation.running import GenerationLimits
from ondol.runtime.pressure import NO_PRESSURE, Pressure
from ondol.runtime.slot import Slot, SlotLimits


class GeneratorSlot(Slot[GenerationEngine]):
    """Makes backends with ``backends``; each reads ``prefixes`` before anybody asks, if it can.

    Unless ``limits`` say otherwise a request waits for a load as long as for its first token.
    """

    def __init__(
        self,
        backends: BackendFactory,
        *,
        settings: Settings,
        prefixes: Sequence[Sequence[Message]] = (),
        limits: SlotLimits | None = None,
        clock: Clock | None = None,
        timers: Timers | None = None,
        observer: Observer | None = None,
        on_state: Callable[[GeneratorHealth], None] = lambda health: None,
    ) -> None:
        super().__init__(
            self._start,
            name="generator",
            limits=limits
            or SlotLimits(
                wait_seconds=settings.generation.first_token_seconds,
                drain_seconds=settings.server.drain_seconds,
            ),
            clock=clock,
            timers=timers,
            observer=observer,
        )
        self._backends = backends
        self._settings = settings
        self._prefixes = prefixes
        self._on_state = on_state
        self._pressure: Pressure = NO_PRESSURE
        self.model = ""
        self.form = ""
        self.adapters: tuple[str, ...] = ()

    def health(self) -> GeneratorHealth | None:
        """Return the state of the backend; ``None`` while cold."""
        return None if self._service is None else self._service.health()

    def snapshot(self) -> QueueSnapshot | None:
        """Return the lanes as they are now; ``None`` while cold."""
        return None if self._service is None else self._service.snapshot()

    def interactive(self) -> int:
        """Return how many requests of people wait or run now."""
        return 0 if self._service is None else self._service.interactive()

    def press(self, pressure: Pressure) -> None:
        """Take over how short of resources the machine is."""
        self._pressure = pressure
        if self._service is not None:
            self._service.press(pressure)

    async def stream(
        self,
        request: GenerationRequest,
        *,
        terms: RequestTerms | None = None,
        timing: Timing | None = None,
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of one generation; see ``use`` and ``GenerationEngine.stream``.

        What it waits for a load counts into its deadline.
        """
        terms = terms or RequestTerms()
        cold, arrived = self.cold, self._clock.monotonic()
        async with self.use() as engine:
            if cold:
                waited = (self._clock.monotonic() - arrived) * 1e3
                terms = replace(terms, elapsed_ms=terms.elapsed_ms + waited)
            async with aclosing(engine.stream(request, terms=terms, timing=timing)) as events:
                async for event in events:
                    yield event

    async def _start(self) -> GenerationEngine:
        backend = await asyncio.to_thread(self._backends.generator, on_state=self._on_state)
        settings = self._settings.generation
        engine = GenerationEngine(
            backend,
            slots=backend.spec.slots,
            lanes=self._settings.lanes,
            policy=policy_of(settings.policy, age_seconds=settings.age_seconds),
            limits=GenerationLimits(
                first_token_seconds=settings.first_token_seconds,
                total_seconds=settings.total_seconds,
            ),
            tokens_per_second=self._backends.prefill_rate(),
            clock=self._clock,
            observer=self._observer,
        )
        engine.press(self._pressure)
        self.name = self.model = backend.spec.model
        self.form, self.adapters = backend.spec.form, backend.spec.adapters
        if isinstance(backend, Preloading):
            backend.preload(self._prefixes)
        return engine

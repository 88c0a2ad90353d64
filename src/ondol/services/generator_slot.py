"""The one generator of a process: loaded, run, loaded anew, unloaded while idle.

A request that finds it unloaded loads it and waits for that; however many arrive meanwhile, there is
one load. Reloading swaps engines with no failed request: the old one ends what it has. Used on one
event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from ondol.backends.base import Generator, GeneratorHealth, Preloading
from ondol.core.clock import Clock
from ondol.core.lane_state import QueueSnapshot
from ondol.core.observe import Observer, Timing
from ondol.core.settings import Settings
from ondol.core.terms import Terms
from ondol.core.types import GenerationEvent, GenerationRequest
from ondol.engine.generation import GenerationEngine
from ondol.engine.policy import policy_of
from ondol.engine.pressure import NO_PRESSURE, Pressure
from ondol.engine.run import GenerationLimits
from ondol.services.backend_factory import BackendFactory
from ondol.text.prompts import standing_prefixes

_log = logging.getLogger("ondol.generator")


class GeneratorSlot:
    """Builds backends with ``backends`` and keeps an engine in front of the one in service."""

    def __init__(
        self,
        backends: BackendFactory,
        *,
        settings: Settings,
        clock: Clock,
        observer: Observer,
        on_state: Callable[[GeneratorHealth], None],
    ) -> None:
        self._backends = backends
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._on_state = on_state
        self._engine: GenerationEngine | None = None
        self._backend: Generator | None = None
        self._pressure: Pressure = NO_PRESSURE
        self._loading = asyncio.Lock()
        self.model = ""
        self.form = ""
        self.adapters: tuple[str, ...] = ()

    @property
    def cold(self) -> bool:
        """Whether it was unloaded; the next request loads it."""
        return self._engine is None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        if self._engine is None:
            return True
        now = self._engine.snapshot()
        return not (now.depth or now.running)

    def health(self) -> GeneratorHealth | None:
        """Return the state of the backend; ``None`` while cold."""
        return None if self._engine is None else self._engine.health()

    def snapshot(self) -> QueueSnapshot | None:
        """Return the lanes as they are now; ``None`` while cold."""
        return None if self._engine is None else self._engine.snapshot()

    def interactive(self) -> int:
        """Return how many requests of people wait or run now."""
        return 0 if self._engine is None else self._engine.interactive()

    def press(self, pressure: Pressure) -> None:
        """Take over how short of resources the machine is."""
        self._pressure = pressure
        if self._engine is not None:
            self._engine.press(pressure)

    async def load(self) -> str:
        """Load it, beside the one in service if there is one, then swap; returns the model's id."""
        async with self._loading:
            return await self._load()

    async def unload(self) -> bool:
        """Release its memory if nothing uses it; returns whether it did."""
        async with self._loading:
            engine, backend = self._engine, self._backend
            if engine is None or backend is None or not self.idle:
                return False
            self._engine = self._backend = None
            await engine.close(0.0)
            await asyncio.to_thread(backend.close)
            _log.info("%s unloaded", self.model)
            return True

    async def close(self, drain_seconds: float) -> None:
        """Admit nothing more, let what runs end within ``drain_seconds``, end the backend."""
        engine, backend = self._engine, self._backend
        if engine is not None:
            await engine.close(drain_seconds)
        self._engine = self._backend = None
        if backend is not None:
            await asyncio.to_thread(backend.close)

    async def stream(
        self,
        request: GenerationRequest,
        *,
        terms: Terms | None = None,
        timing: Timing | None = None,
    ) -> AsyncGenerator[GenerationEvent]:
        """Yield the events of one generation; see ``GenerationEngine.stream``."""
        terms = terms or Terms()
        if self._engine is None:
            before = self._clock.monotonic()
            await self._warm()
            waited = (self._clock.monotonic() - before) * 1e3
            terms = replace(terms, elapsed_ms=terms.elapsed_ms + waited)
        engine = self._engine
        if engine is None:
            return
        async with aclosing(engine.stream(request, terms=terms, timing=timing)) as events:
            async for event in events:
                yield event

    async def _warm(self) -> None:
        async with self._loading:
            if self._engine is None:
                await self._load()

    async def _load(self) -> str:
        backend = await asyncio.to_thread(self._backends.generator, on_state=self._on_state)
        old_engine, old_backend = self._engine, self._backend
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
        self._engine, self._backend = engine, backend
        self.model, self.form = backend.spec.model, backend.spec.form
        self.adapters = backend.spec.adapters
        if isinstance(backend, Preloading):
            backend.preload(standing_prefixes())
        if old_engine is not None:
            await old_engine.close(self._settings.server.drain_seconds)
        if old_backend is not None and old_backend is not backend:
            await asyncio.to_thread(old_backend.close)
        return self.model

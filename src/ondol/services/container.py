"""Builds everything from settings, once, and owns its lifetime.

The only place that names concrete classes. Components load side by side; each has a state, and a
service asked for too early raises ``NotReady`` with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeVar

from ondol.backends.base import GeneratorHealth
from ondol.core.clock import SystemClock
from ondol.core.errors import InvalidInput, NotFound, NotReady, OfflineMissing, OndolError
from ondol.core.machine import Machine
from ondol.core.memory import LoadGauge
from ondol.core.observe import ModelStateChanged, NullObserver, Observer
from ondol.core.settings import Settings
from ondol.core.timers import LoopTimers
from ondol.engine.generation import GenerationEngine
from ondol.engine.policy import policy_of
from ondol.engine.run import GenerationLimits
from ondol.models.library import ModelLibrary
from ondol.services.ask import AskService
from ondol.services.backend_factory import BackendFactory, passage_budget
from ondol.services.cache_tiers import CacheTiers
from ondol.services.chat import ChatService
from ondol.services.embedding import EmbeddingService
from ondol.services.embedding_cache import CachedLane
from ondol.services.encoder_assembly import assemble
from ondol.services.encoder_group import EncoderGroup, Surroundings
from ondol.services.encoder_lane import EncoderLane
from ondol.services.ingest import IngestService
from ondol.services.readiness import Component, ComponentState, Readiness, state_of
from ondol.services.reranking import RerankingService
from ondol.services.retrieval import RetrievalService
from ondol.store.documents import DocumentStore
from ondol.store.embedding_cache import CacheStats
from ondol.text.korean import KeywordAnalyzer
from ondol.text.readers.isolated import IsolatedReader

_log = logging.getLogger("ondol.container")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Parts:
    """Which components a caller needs; a command that only searches loads no generator."""

    embedder: bool = True
    reranker: bool = True
    keywords: bool = True
    generator: bool = True
    fake: bool = False


class Container:
    """All services of one process. Use ``async with Container.open(settings) as container``."""

    def __init__(
        self,
        settings: Settings,
        *,
        parts: Parts | None = None,
        observer: Observer | None = None,
        backends: BackendFactory | None = None,
    ) -> None:
        self.settings = settings
        self.observer: Observer = observer or NullObserver()
        self._parts = parts or Parts()
        self._backends = backends or BackendFactory(settings, fake=self._parts.fake)
        self.library: ModelLibrary = self._backends.library
        self.machine: Machine = self._backends.machine
        self._clock = SystemClock()
        self._shared = Surroundings(self._clock, LoopTimers(), self.observer, LoadGauge())
        self._assembled = partial(
            assemble, settings=settings, backends=self._backends, shared=self._shared
        )
        self._states: dict[str, ComponentState] = {}
        self._failures: list[Exception] = []
        self._store: DocumentStore | None = None
        self._analyzer = KeywordAnalyzer()
        self._reader = IsolatedReader()
        self._embedder: EncoderGroup | None = None
        self._reranker: EncoderGroup | None = None
        self._cache: CacheTiers | None = None
        self._engine: GenerationEngine | None = None
        self._embedding: EmbeddingService | None = None
        self._reranking: RerankingService | None = None
        self._ingest: IngestService | None = None
        self._generator_model = ""

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        parts: Parts | None = None,
        observer: Observer | None = None,
        backends: BackendFactory | None = None,
    ) -> Self:
        """Return a container; it loads on ``async with`` (all at once) or on ``start``.

        ``backends`` replaces where models come from.
        """
        return cls(settings, parts=parts, observer=observer, backends=backends)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
            self._raise_failures()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Load every wanted component side by side; failures become states, not exceptions."""
        parts = self._parts
        wanted: dict[str, tuple[bool, Callable[[], Awaitable[str]]]] = {
            "store": (True, self._load_store),
            "embedder": (parts.embedder, self._load_embedder),
            "reranker": (
                parts.reranker and self.settings.models.reranker != "none",
                self._load_reranker,
            ),
            "keywords": (parts.keywords, self._load_keywords),
            "generator": (
                parts.generator and self.settings.generation.model != "none",
                self._load_generator,
            ),
        }
        for name, (on, _) in wanted.items():
            self._states[name] = ComponentState("loading" if on else "off")
        await asyncio.gather(*(self._load(name, load) for name, (on, load) in wanted.items() if on))

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Stop admitting, let what runs finish up to ``drain_seconds``, release everything."""
        if self._engine is not None:
            await self._engine.close(drain_seconds)
        for group in self.encoders.values():
            await group.close()
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)
        await asyncio.to_thread(self._reader.close)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self._engine = self._embedder = self._reranker = self._store = None

    def readiness(self) -> Readiness:
        """Return the state of every component now; a model's follows its slot or process."""
        components = dict(self._states)
        for name, group in self.encoders.items():
            if components[name].state == "ready":
                components[name] = state_of(group, components[name])
        generator = components.get("generator")
        if self._engine is not None and generator is not None and generator.state == "ready":
            health = self._engine.health()
            if not health.ready:
                components["generator"] = ComponentState(
                    "failed" if health.state == "failed" else "loading",
                    model=generator.model,
                    reason=f"{health.state}: {health.reason}".strip(": "),
                )
        ready = bool(components) and all(c.state in ("ready", "off") for c in components.values())
        return Readiness(ready=ready, components=components)

    @property
    def store(self) -> DocumentStore:
        return self._need(self._store, "store")

    @property
    def embedding(self) -> EmbeddingService:
        return self._need(self._embedding, "embedder")

    @property
    def reranking(self) -> RerankingService:
        return self._need(self._reranking, "reranker")

    @property
    def generation(self) -> GenerationEngine:
        return self._need(self._engine, "generator")

    @property
    def chat(self) -> ChatService:
        return ChatService(self.generation, model=self._generator_model)

    @property
    def retrieval(self) -> RetrievalService:
        dense = self._parts.embedder
        return RetrievalService(
            self.store,
            self.embedding if dense else None,
            self._analyzer,
            settings=self.settings.retrieval,
            reranking=self._reranking,
            clock=self._clock,
        )

    @property
    def ingest(self) -> IngestService:
        if self._ingest is None:
            self._ingest = IngestService(
                self.store,
                self.embedding,
                self._analyzer,
                self._reader,
                settings=self.settings.ingest,
                clock=self._clock,
                observer=self.observer,
            )
        return self._ingest

    @property
    def ask(self) -> AskService:
        return AskService(
            self.retrieval,
            self.embedding,
            self.chat,
            settings=self.settings.answer,
            context_tokens=self.context_tokens(),
            clock=self._clock,
            observer=self.observer,
        )

    @property
    def generator_reason(self) -> str:
        """Why this generator was chosen, in one sentence."""
        return self._backends.generator_reason

    @property
    def encoders(self) -> dict[str, EncoderGroup]:
        """The encoders that have been loaded, by component."""
        pairs = {"embedder": self._embedder, "reranker": self._reranker}
        return {name: group for name, group in pairs.items() if group is not None}

    @property
    def cache_stats(self) -> list[CacheStats]:
        """What each tier of the embedding cache holds and has done; empty where it is off."""
        return [] if self._cache is None else self._cache.stats()

    def context_tokens(self) -> int:
        """Return the passage budget in tokens: what the generator reads in about three seconds."""
        return passage_budget(self._backends.generator_bytes, cores=self.machine.cores)

    async def reload(
        self, component: Literal["embedder", "reranker", "generator"], *, form: str = "auto"
    ) -> None:
        """Load a component anew beside the running one, then swap; raises if it cannot load.

        ``form`` names the form of an encoder; ``auto`` is what the settings say.
        """
        running = self.encoders.get(component)
        if running is not None:
            await running.reload(form=form)
            self._states[component] = ComponentState("ready", model=running.spec.model)
            return
        if form != "auto":
            raise InvalidInput(
                f"{component} cannot be loaded as {form!r}: only a loaded encoder changes its form",
                hint="leave the form out",
                param="form",
            )
        old_engine = self._engine
        loads = {
            "embedder": self._load_embedder,
            "reranker": self._load_reranker,
            "generator": self._load_generator,
        }
        model = await loads[component]()
        self._states[component] = ComponentState("ready", model=model)
        if old_engine is not None and old_engine is not self._engine:
            await old_engine.close(self.settings.server.drain_seconds)

    async def _load(self, name: str, load: Callable[[], Awaitable[str]]) -> None:
        started = self._clock.monotonic()
        try:
            model = await load()
        except Exception as error:
            if not isinstance(error, OndolError):
                _log.exception("%s failed to load", name)
            reason = f"{error} {getattr(error, 'hint', '')}".strip()
            if name == "reranker" and self._can_do_without_reranker(error):
                _log.warning("searching without a reranker: %s", reason)
                self._states[name] = ComponentState("off", reason=reason)
                return
            self._states[name] = ComponentState("failed", reason=reason)
            self._failures.append(error)
            self.observer.observe(ModelStateChanged(model=name, state="failed", reason=reason))
            return
        seconds = self._clock.monotonic() - started
        self._states[name] = ComponentState("ready", model=model, seconds=seconds)
        self.observer.observe(
            ModelStateChanged(model=model or name, state="ready", seconds=seconds)
        )

    def _can_do_without_reranker(self, error: Exception) -> bool:
        """A reranker that was never pulled is no failure unless every search must rerank."""
        absent = isinstance(error, NotFound | OfflineMissing)
        return absent and self.settings.retrieval.rerank != "on"

    def _raise_failures(self) -> None:
        for error in self._failures:
            raise error

    def _generator_state(self, health: GeneratorHealth) -> None:
        self.observer.observe(
            ModelStateChanged(
                model=self._backends.generator_model, state=health.state, reason=health.reason
            )
        )

    async def _load_store(self) -> str:
        self._store = await asyncio.to_thread(DocumentStore, self.settings.home, clock=self._clock)
        return ""

    async def _load_keywords(self) -> str:
        await asyncio.to_thread(self._shared.gauge.measure, self._analyzer.warm_up)
        return "kiwi"

    async def _load_embedder(self) -> str:
        if self._cache is None:
            self._cache = await asyncio.to_thread(
                CacheTiers.open, self.settings, observer=self.observer
            )
        front = self._cached if self._cache is not None else None
        group = self._assembled("embedder", front=front)
        plan = await group.load()
        self._embedder = group
        self._embedding = EmbeddingService(
            group,
            query_prefix=plan.query_prefix,
            document_prefix=plan.document_prefix,
            observer=self.observer,
        )
        self._ingest = None
        return plan.model

    async def _load_reranker(self) -> str:
        group = self._assembled("reranker")
        plan = await group.load()
        self._reranker = group
        self._reranking = RerankingService(group, languages=plan.languages, observer=self.observer)
        return plan.model

    async def _load_generator(self) -> str:
        backend = await asyncio.to_thread(self._backends.generator, on_state=self._generator_state)
        settings = self.settings.generation
        self._engine = GenerationEngine(
            backend,
            slots=backend.spec.slots,
            lanes=self.settings.lanes,
            policy=policy_of(settings.policy, age_seconds=settings.age_seconds),
            limits=GenerationLimits(
                first_token_seconds=settings.first_token_seconds,
                total_seconds=settings.total_seconds,
            ),
            tokens_per_second=self._backends.prefill_rate(),
            clock=self._clock,
            observer=self.observer,
        )
        self._generator_model = backend.spec.model
        return backend.spec.model

    def _cached(self, lane: EncoderLane) -> EncoderLane:
        return lane if self._cache is None else CachedLane(lane, self._cache)

    def _need(self, part: _T | None, name: Component) -> _T:
        if part is not None:
            return part
        state = self._states.get(name, ComponentState("loading"))
        if state.state == "failed":
            raise NotReady(
                f"the {name} could not be loaded: {state.reason}",
                retry_after=30,
                hint="see /health/ready, or run `ondol doctor`",
            )
        if state.state == "off":
            raise NotReady(
                f"no {name} is loaded. {state.reason}".strip(),
                retry_after=60,
                hint="see `ondol doctor --settings`",
            )
        raise NotReady(f"the {name} is still loading", retry_after=2, hint="try again shortly")

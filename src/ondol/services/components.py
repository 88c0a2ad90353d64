"""What a process loads, side by side, and how each stands: store, models, keywords, recorder.

Failures become states; ``need`` raises ``NotReady`` for what does not stand yet, with the reason.
Each is loaded once, may be loaded anew beside the running one, and is released by ``close``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from ondol.app.store_assembly import open_documents
from ondol.backends.base import GeneratorHealth
from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput, NotFound, OfflineMissing
from ondol.core.memory import LoadGauge
from ondol.core.observe import ModelStateChanged, Observer, Observers
from ondol.core.settings import Settings
from ondol.core.timers import LoopTimers
from ondol.core.types import Message
from ondol.runtime.embedding_cache.embedding_cache import CachedLane, CacheTiers
from ondol.runtime.encoder_lane import EncoderLane
from ondol.services.backend_factory import BackendFactory
from ondol.services.embedding import EmbeddingService
from ondol.services.encoder_assembly import assemble
from ondol.services.encoder_group import EncoderGroup, Surroundings
from ondol.services.generator_slot import GeneratorSlot
from ondol.services.readiness import (
    Component,
    ComponentState,
    Load,
    Loading,
    Readiness,
    state_of_encoders,
    state_of_generator,
)
from ondol.services.reranking import RerankingService
from ondol.services.vector_choice import vector_search
from ondol.store.documents import DocumentStore
from ondol.store.keyword_rows import KeywordStore
from ondol.store.metric_rows import MetricStore
from ondol.telemetry.recorder import Recorder, Retention
from ondol.text.korean import KeywordAnalyzer

_T = TypeVar("_T")

Model = Literal["embedder", "reranker", "generator"]
"""A component that is a model and can be loaded anew."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Which components a caller needs; a command that only searches loads no generator.

    ``record`` keeps finished requests in the store's tables; a server does.
    """

    embedder: bool = True
    reranker: bool = True
    keywords: bool = True
    generator: bool = True
    fake: bool = False
    record: bool = False


class Components:
    """Every part of one process that takes time to load; ``None`` until it stands.

    ``prefixes`` are the beginnings of conversations that the generator reads before anybody asks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        parts: Parts,
        observers: Sequence[Observer],
        backends: BackendFactory | None,
        analyzer: KeywordAnalyzer | None,
        clock: Clock,
        prefixes: Sequence[Sequence[Message]] = (),
    ) -> None:
        self.clock = clock
        self.recorder = self._recording(settings) if parts.record else None
        recorders = () if self.recorder is None else (self.recorder,)
        self.observer: Observer = Observers(*observers, *recorders)
        self.backends = backends or BackendFactory(settings, fake=parts.fake)
        self.analyzer = analyzer or KeywordAnalyzer()
        self.store: DocumentStore | None = None
        self.embedder: EncoderGroup | None = None
        self.reranker: EncoderGroup | None = None
        self.generator: GeneratorSlot | None = None
        self.cache: CacheTiers | None = None
        self.embedding: EmbeddingService | None = None
        self.reranking: RerankingService | None = None
        self._settings = settings
        self._parts = parts
        self._prefixes = prefixes
        self._shared = Surroundings(self.clock, LoopTimers(), self.observer, LoadGauge())
        self._assembled = partial(
            assemble, settings=settings, backends=self.backends, shared=self._shared
        )
        self._loading = Loading(
            dispensable=self._dispensable, clock=self.clock, observer=self.observer
        )
        self._store_tried = asyncio.Event()

    async def start(self) -> None:
        """Load every wanted component side by side; failures become states, not exceptions."""
        parts = self._parts
        wanted: dict[str, tuple[bool, Load]] = {
            "store": (True, self._load_store),
            "embedder": (self.embeds, self._load_embedder),
            "reranker": (
                parts.reranker and self._settings.models.reranker != "none",
                self._load_reranker,
            ),
            "keywords": (parts.keywords, self._load_keywords),
            "generator": (
                parts.generator and self._settings.generation.model != "none",
                self._load_generator,
            ),
        }
        await self._loading.start(wanted)

    def raise_first(self) -> None:
        """Raise the first failure to load, if there was one."""
        self._loading.raise_first()

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Stop admitting, let what runs finish up to ``drain_seconds``, release everything."""
        if self.generator is not None:
            await self.generator.close(drain_seconds)
        for group in self.encoders.values():
            await group.close()
        if self.cache is not None:
            await asyncio.to_thread(self.cache.close)
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)
        if self.store is not None:
            await asyncio.to_thread(self.store.close)
        self.embedder = self.reranker = self.store = self.generator = None

    def readiness(self) -> Readiness:
        """Return the state of every component now; a model's follows its slot or process."""
        components = dict(self._loading.states)
        for name, group in self.encoders.items():
            if components[name].state == "ready":
                components[name] = state_of_encoders(group, components[name])
        generator = components.get("generator")
        if self.generator is not None and generator is not None and generator.state == "ready":
            components["generator"] = state_of_generator(self.generator, generator)
        ready = bool(components) and all(c.state in ("ready", "off") for c in components.values())
        return Readiness(ready=ready, components=components)

    @property
    def embeds(self) -> bool:
        """Whether an embedder is wanted at all."""
        return self._parts.embedder and self._settings.models.embedder != "none"

    @property
    def encoders(self) -> dict[str, EncoderGroup]:
        """The encoders that have been loaded, by component."""
        pairs = {"embedder": self.embedder, "reranker": self.reranker}
        return {name: group for name, group in pairs.items() if group is not None}

    def need(self, part: _T | None, name: Component) -> _T:
        """Return ``part``, or raise ``NotReady`` with the reason why ``name`` does not stand."""
        if part is None:
            raise self._loading.absent(name)
        return part

    async def reload(self, component: Model, *, form: str = "auto") -> None:
        """Load a component anew beside the running one, then swap; raises if it cannot load.

        ``form`` names the form of an encoder; ``auto`` is what the settings say.
        """
        running = self.encoders.get(component)
        if running is not None:
            await running.reload(form=form)
            self._loading.states[component] = ComponentState("ready", model=running.spec.model)
            return
        if form != "auto":
            raise InvalidInput(
                f"{component} cannot be loaded as {form!r}: only a loaded encoder changes its form",
                hint="leave the form out",
                param="form",
            )
        loads = {
            "embedder": self._load_embedder,
            "reranker": self._load_reranker,
            "generator": self._load_generator,
        }
        model = await loads[component]()
        self._loading.states[component] = ComponentState("ready", model=model)

    def _dispensable(self, name: str, error: Exception) -> bool:
        """A reranker that was never pulled is no failure unless every search must rerank."""
        absent = isinstance(error, NotFound | OfflineMissing)
        return name == "reranker" and absent and self._settings.retrieval.rerank != "on"

    def _generator_state(self, health: GeneratorHealth) -> None:
        self.observer.observe(
            ModelStateChanged(
                model=self.backends.generator_model, state=health.state, reason=health.reason
            )
        )

    async def _load_store(self) -> str:
        try:
            self.store = await asyncio.to_thread(
                open_documents,
                self._settings.home,
                clock=self.clock,
                vector_search=vector_search(self._settings),
            )
        finally:
            self._store_tried.set()
        return ""

    async def _load_keywords(self) -> str:
        """Load the Korean model where there is Korean text; else its first text will."""
        await self._store_tried.wait()
        if self.store is not None and await asyncio.to_thread(
            KeywordStore(self.store.database).hold_hangul
        ):
            await asyncio.to_thread(self._shared.gauge.measure, self.analyzer.warm_up)
        return "kiwi"

    async def _load_embedder(self) -> str:
        if self.cache is None:
            self.cache = await asyncio.to_thread(
                CacheTiers.open, self._settings, observer=self.observer
            )
        front = self._cached if self.cache is not None else None
        group = self._assembled("embedder", front=front)
        plan = await group.load()
        self.embedder = group
        self.embedding = EmbeddingService(
            group,
            query_prefix=plan.query_prefix,
            document_prefix=plan.document_prefix,
            lanes=self._settings.lanes,
            observer=self.observer,
        )
        return plan.model

    async def _load_reranker(self) -> str:
        group = self._assembled("reranker")
        plan = await group.load()
        self.reranker = group
        self.reranking = RerankingService(
            group,
            languages=plan.languages,
            lanes=self._settings.lanes,
            observer=self.observer,
        )
        return plan.model

    async def _load_generator(self) -> str:
        if self.generator is not None:
            await self.generator.reload()
            return self.generator.model
        slot = GeneratorSlot(
            self.backends,
            settings=self._settings,
            prefixes=self._prefixes,
            clock=self.clock,
            timers=self._shared.timers,
            observer=self.observer,
            on_state=self._generator_state,
        )
        try:
            await slot.load()
        except BaseException:
            await slot.close()
            raise
        self.generator = slot
        return slot.model

    @property
    def metrics(self) -> MetricStore:
        """The rows of finished requests, in the store's file."""
        return MetricStore(self.need(self.store, "store").database)

    def _recording(self, settings: Settings) -> Recorder:
        kept = settings.telemetry
        return Recorder(
            lambda rows: self.metrics.insert(rows),
            trim=lambda *, before, keep: self.metrics.trim(before=before, keep=keep),
            retention=Retention(kept.retention_days, kept.retention_rows),
            clock=self.clock,
        )

    def _cached(self, lane: EncoderLane) -> EncoderLane:
        return lane if self.cache is None else CachedLane(lane, self.cache)

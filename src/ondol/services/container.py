"""Builds everything from settings, once, and owns its lifetime.

The only place that names concrete classes. Components load side by side; each has a state, and a
service asked for too early raises ``NotReady`` with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from ondol.backends.base import Encoder, GeneratorHealth
from ondol.core.clock import SystemClock
from ondol.core.errors import ModelError, NotFound, NotReady, OfflineMissing, OndolError
from ondol.core.machine import Machine, describe
from ondol.core.observe import ModelStateChanged, NullObserver, Observer
from ondol.core.settings import Settings
from ondol.engine.batcher import Batcher, BatcherLimits
from ondol.engine.generation import GenerationEngine, GenerationLimits
from ondol.models.library import ModelLibrary
from ondol.services.ask import AskService
from ondol.services.backend_factory import BackendFactory, passage_budget
from ondol.services.chat import ChatService
from ondol.services.embedding import EmbeddingService
from ondol.services.ingest import IngestService
from ondol.services.reranking import RerankingService
from ondol.services.retrieval import RetrievalService
from ondol.store.documents import DocumentStore
from ondol.text.korean import KeywordAnalyzer
from ondol.text.readers.isolated import IsolatedReader

_log = logging.getLogger("ondol.container")
_T = TypeVar("_T")
Component = Literal["store", "embedder", "reranker", "keywords", "generator"]


@dataclass(frozen=True, slots=True)
class ComponentState:
    """One component: what it runs, and why it is not ready where it is not."""

    state: Literal["off", "loading", "ready", "failed"]
    model: str = ""
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be served: every component that is not off is ready."""

    ready: bool
    components: dict[str, ComponentState]


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
        self, settings: Settings, *, parts: Parts | None = None, observer: Observer | None = None
    ) -> None:
        self.settings = settings
        self.machine: Machine = describe()
        self.observer: Observer = observer or NullObserver()
        self.library = ModelLibrary(
            settings.home / "models",
            offline=settings.offline,
            extra_sources=[Path(text).expanduser() for text in settings.models.sources],
        )
        self._parts = parts or Parts()
        self._backends = BackendFactory(
            settings, library=self.library, machine=self.machine, fake=self._parts.fake
        )
        self._clock = SystemClock()
        self._states: dict[str, ComponentState] = {}
        self._failures: list[Exception] = []
        self._store: DocumentStore | None = None
        self._analyzer = KeywordAnalyzer()
        self._reader = IsolatedReader()
        self._embedder: Batcher | None = None
        self._reranker: Batcher | None = None
        self._engine: GenerationEngine | None = None
        self._embedding: EmbeddingService | None = None
        self._reranking: RerankingService | None = None
        self._ingest: IngestService | None = None
        self._generator_model = ""

    @classmethod
    def open(
        cls, settings: Settings, *, parts: Parts | None = None, observer: Observer | None = None
    ) -> Self:
        """Return a container; it loads on ``async with`` (all at once) or on ``start``."""
        return cls(settings, parts=parts, observer=observer)

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
        for batcher in (self._embedder, self._reranker):
            if batcher is not None:
                await batcher.close()
        await asyncio.to_thread(self._reader.close)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self._engine = self._embedder = self._reranker = self._store = None

    def readiness(self) -> Readiness:
        """Return the state of every component now; the generator's follows its process."""
        components = dict(self._states)
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
    def batchers(self) -> dict[str, Batcher]:
        """The loaded encoders' batchers by lane name."""
        pairs = {"embeddings": self._embedder, "rerank": self._reranker}
        return {name: batcher for name, batcher in pairs.items() if batcher is not None}

    def context_tokens(self) -> int:
        """Return the passage budget in tokens: what the generator reads in about three seconds."""
        return passage_budget(self._backends.generator_bytes, cores=self.machine.cores)

    async def reload(self, component: Literal["embedder", "reranker", "generator"]) -> None:
        """Load a component anew beside the running one, then swap; raises if it cannot load."""
        old_batchers = (self._embedder, self._reranker)
        old_engine = self._engine
        loads = {
            "embedder": self._load_embedder,
            "reranker": self._load_reranker,
            "generator": self._load_generator,
        }
        model = await loads[component]()
        self._states[component] = ComponentState("ready", model=model)
        for old, new in zip(old_batchers, (self._embedder, self._reranker), strict=True):
            if old is not None and old is not new:
                await old.drain()
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
        await asyncio.to_thread(self._analyzer.warm_up)
        return "kiwi"

    async def _load_embedder(self) -> str:
        encoder, prefixes = await asyncio.to_thread(self._backends.embedder)
        await asyncio.to_thread(_warm, encoder)
        self._embedder = Batcher(
            encoder,
            limits=self._batcher_limits(self.settings.lanes.embeddings_queue),
            observer=self.observer,
        )
        service = EmbeddingService(
            self._embedder,
            query_prefix=prefixes[0],
            document_prefix=prefixes[1],
            observer=self.observer,
        )
        self._embedding, self._ingest = service, None
        return encoder.spec.model

    async def _load_reranker(self) -> str:
        encoder, languages = await asyncio.to_thread(self._backends.reranker)
        self._reranker = Batcher(
            encoder,
            limits=self._batcher_limits(self.settings.lanes.rerank_queue),
            observer=self.observer,
        )
        self._reranking = RerankingService(
            self._reranker, languages=languages, observer=self.observer
        )
        return encoder.spec.model

    async def _load_generator(self) -> str:
        backend = await asyncio.to_thread(self._backends.generator, on_state=self._generator_state)
        settings = self.settings.generation
        self._engine = GenerationEngine(
            backend,
            slots=backend.spec.slots,
            queue=settings.queue,
            limits=GenerationLimits(
                queue_seconds=settings.queue_seconds,
                first_token_seconds=settings.first_token_seconds,
                total_seconds=settings.total_seconds,
            ),
            clock=self._clock,
            observer=self.observer,
        )
        self._generator_model = backend.spec.model
        return backend.spec.model

    def _batcher_limits(self, queue: int) -> BatcherLimits:
        return BatcherLimits(
            token_budget=self.settings.models.token_budget,
            max_batch=self.settings.models.max_batch,
            queue_requests=queue,
            queue_seconds=self.settings.lanes.queue_seconds,
        )

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


def _warm(encoder: Encoder) -> None:
    """Run one small batch, so that the first caller does not pay for first-use work."""
    encoded = encoder.tokenize(["온돌 warm-up"], truncate=True)[0]
    if isinstance(encoded, OndolError):
        raise ModelError(f"{encoder.spec.model} cannot tokenise", hint="pull the model anew")
    encoder.run([encoded])

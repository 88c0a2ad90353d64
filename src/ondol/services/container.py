"""Builds everything from settings, once, and owns its lifetime.

The only place that names concrete classes. Components load side by side; each has a state, and a
service asked for too early raises ``NotReady`` with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeVar

from ondol.backends.base import GeneratorHealth
from ondol.core.clock import SystemClock
from ondol.core.errors import InvalidInput, NotFound, OfflineMissing
from ondol.core.lane_state import LaneSnapshot
from ondol.core.machine import Machine
from ondol.core.memory import LoadGauge
from ondol.core.observe import ModelStateChanged, Observer, Observers
from ondol.core.settings import Settings
from ondol.core.timers import LoopTimers
from ondol.engine.permit import LanePermit
from ondol.models.library import ModelLibrary
from ondol.services.ask import AskService
from ondol.services.backend_factory import BackendFactory
from ondol.services.cache_tiers import CacheTiers
from ondol.services.chat import ChatService
from ondol.services.embedding import EmbeddingService
from ondol.services.embedding_cache import CachedLane
from ondol.services.encoder_assembly import assemble
from ondol.services.encoder_group import EncoderGroup, Surroundings
from ondol.services.encoder_lane import EncoderLane
from ondol.services.generator_slot import GeneratorSlot
from ondol.services.ingest import IngestService
from ondol.services.jobs.assembly import Jobs
from ondol.services.jobs.feed import JobFeed
from ondol.services.jobs.task_work import TaskWork
from ondol.services.jobs.work import Work
from ondol.services.keywords import KeywordService
from ondol.services.lane_report import lane_report
from ondol.services.loading import Load, Loading
from ondol.services.query_rewriting import QueryRewriter
from ondol.services.readiness import UNLOADED, Component, ComponentState, Readiness, state_of
from ondol.services.reranking import RerankingService
from ondol.services.retrieval import RetrievalService
from ondol.services.tasks.service import TaskService
from ondol.services.tasks.shelf import PackShelf
from ondol.services.tasks.workbench import Workbench
from ondol.services.vector_choice import vector_search
from ondol.store.documents import DocumentStore
from ondol.store.embedding_cache import CacheStats
from ondol.telemetry.recorder import Recorder, RecorderStats, Retention
from ondol.text.korean import KeywordAnalyzer
from ondol.text.readers.isolated import IsolatedReader

_log = logging.getLogger("ondol.container")
_T = TypeVar("_T")


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


class Container:
    """All services of one process. Use ``async with Container.open(settings) as container``."""

    def __init__(
        self,
        settings: Settings,
        *,
        parts: Parts | None = None,
        observer: Observer | None = None,
        backends: BackendFactory | None = None,
        analyzer: KeywordAnalyzer | None = None,
        work: Work | None = None,
    ) -> None:
        self.settings = settings
        self._parts = parts or Parts()
        self._clock = SystemClock()
        self._recorder = self._recording() if self._parts.record else None
        self._job_feed = JobFeed()
        heard = [one for one in (observer, self._recorder) if one is not None]
        self.observer: Observer = Observers(*heard, self._job_feed)
        self._backends = backends or BackendFactory(settings, fake=self._parts.fake)
        self.library: ModelLibrary = self._backends.library
        self.machine: Machine = self._backends.machine
        self._shared = Surroundings(self._clock, LoopTimers(), self.observer, LoadGauge())
        self._assembled = partial(
            assemble, settings=settings, backends=self._backends, shared=self._shared
        )
        self.searches = LanePermit("search", settings.lanes.search, clock=self._clock)
        self._loading = Loading(
            dispensable=self._dispensable, clock=self._clock, observer=self.observer
        )
        self._store: DocumentStore | None = None
        self._store_tried = asyncio.Event()
        self._analyzer = analyzer or KeywordAnalyzer()
        self._reader = IsolatedReader()
        self._embedder: EncoderGroup | None = None
        self._reranker: EncoderGroup | None = None
        self._cache: CacheTiers | None = None
        self._generator: GeneratorSlot | None = None
        self._embedding: EmbeddingService | None = None
        self._reranking: RerankingService | None = None
        self._ingest: IngestService | None = None
        self._work = work
        self._jobs: Jobs | None = None
        self._tasks: TaskService | None = None

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        parts: Parts | None = None,
        observer: Observer | None = None,
        backends: BackendFactory | None = None,
        analyzer: KeywordAnalyzer | None = None,
        work: Work | None = None,
    ) -> Self:
        """Return a container; it loads on ``async with`` (all at once) or on ``start``.

        ``backends`` replaces where models come from, ``work`` what jobs run; an ``analyzer`` that
        is already loaded saves its loading.
        """
        return cls(
            settings,
            parts=parts,
            observer=observer,
            backends=backends,
            analyzer=analyzer,
            work=work,
        )

    async def __aenter__(self) -> Self:
        try:
            await self.start()
            self._loading.raise_first()
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
        wanted: dict[str, tuple[bool, Load]] = {
            "store": (True, self._load_store),
            "embedder": (self._embeds, self._load_embedder),
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
        await self._loading.start(wanted)

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Stop admitting, let what runs finish up to ``drain_seconds``, release everything."""
        if self._generator is not None:
            await self._generator.close(drain_seconds)
        for group in self.encoders.values():
            await group.close()
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)
        await asyncio.to_thread(self._reader.close)
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self._embedder = self._reranker = self._store = None
        self._generator = self._jobs = None

    def readiness(self) -> Readiness:
        """Return the state of every component now; a model's follows its slot or process."""
        components = dict(self._loading.states)
        for name, group in self.encoders.items():
            if components[name].state == "ready":
                components[name] = state_of(group, components[name])
        generator = components.get("generator")
        if self._generator is not None and generator is not None and generator.state == "ready":
            health = self._generator.health()
            if health is None:
                components["generator"] = replace(generator, reason=UNLOADED)
            elif not health.ready:
                components["generator"] = ComponentState(
                    "failed" if health.state == "failed" else "loading",
                    model=generator.model,
                    reason=f"{health.state}: {health.reason}".strip(": "),
                )
        ready = bool(components) and all(c.state in ("ready", "off") for c in components.values())
        return Readiness(ready=ready, components=components)

    @property
    def _embeds(self) -> bool:
        return self._parts.embedder and self.settings.models.embedder != "none"

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
    def generation(self) -> GeneratorSlot:
        return self._need(self._generator, "generator")

    @property
    def chat(self) -> ChatService:
        return ChatService(self.generation, model=self.generation.model)

    @property
    def retrieval(self) -> RetrievalService:
        return self.retrieval_over(self.store, self.embedding if self._embeds else None)

    def retrieval_over(
        self, store: DocumentStore, embedding: EmbeddingService | None
    ) -> RetrievalService:
        """Return search in ``store``, perhaps a view of this one's, by another embedder's vectors."""
        return RetrievalService(
            store,
            embedding,
            self._analyzer,
            settings=self.settings.retrieval,
            reranking=self._reranking,
            lanes=self.settings.lanes,
            permit=self.searches,
            clock=self._clock,
            observer=self.observer,
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
    def tasks(self) -> TaskService:
        """The declared tasks; packs are read once, a bad one is an error."""
        if self._tasks is None:
            given = self.settings.tasks
            shelf = PackShelf.open(self.settings.home, given.packs)
            bench = Workbench(self, home=self.settings.home, settings=given, clock=self._clock)
            self._tasks = TaskService(shelf, bench, clock=self._clock)
        return self._tasks

    @property
    def jobs(self) -> Jobs:
        """Jobs, of which nobody works any until a runner is started."""
        if self._jobs is None:
            self._jobs = Jobs(
                self.store.jobs,
                self._work or TaskWork(lambda: self.tasks),
                home=self.settings.home,
                settings=self.settings.jobs,
                clock=self._clock,
                feed=self._job_feed,
                queue=lambda: self._generator.snapshot() if self._generator is not None else None,
            )
        return self._jobs

    @property
    def keywords(self) -> KeywordService:
        return KeywordService(self.store, self._analyzer, clock=self._clock)

    @property
    def ask(self) -> AskService:
        return AskService(
            self.retrieval,
            self.embedding,
            self.chat,
            settings=self.settings.answer,
            context_tokens=self.context_tokens(),
            rewriter=QueryRewriter(self.chat, settings=self.settings.retrieval),
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
    def loaded_generator(self) -> GeneratorSlot | None:
        """The generator, if there is one and it has been loaded."""
        return self._generator

    @property
    def models(self) -> dict[str, EncoderGroup | GeneratorSlot]:
        """Every model that has been loaded, by component; a cold one is loaded by its next use."""
        generator = {} if self._generator is None else {"generator": self._generator}
        return {**self.encoders, **generator}

    def lanes(self) -> dict[str, LaneSnapshot]:
        """Return every lane as it is now."""
        return lane_report(
            self.settings.lanes,
            generator=self._generator,
            searches=self.searches.snapshot(),
            encoders=self.encoders,
        )

    @property
    def recorder_stats(self) -> RecorderStats:
        """What the recorder of finished requests has written and lost; zeros where it is off."""
        return RecorderStats() if self._recorder is None else self._recorder.stats()

    @property
    def cache_stats(self) -> list[CacheStats]:
        """What each tier of the embedding cache holds and has done; empty where it is off."""
        return [] if self._cache is None else self._cache.stats()

    def context_tokens(self) -> int:
        """Return the passage budget in tokens: what the generator reads in ``answer.read_seconds``."""
        return self._backends.passage_budget(self.settings.answer.read_seconds)

    async def reload(
        self, component: Literal["embedder", "reranker", "generator"], *, form: str = "auto"
    ) -> None:
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
        return name == "reranker" and absent and self.settings.retrieval.rerank != "on"

    def _generator_state(self, health: GeneratorHealth) -> None:
        self.observer.observe(
            ModelStateChanged(
                model=self._backends.generator_model, state=health.state, reason=health.reason
            )
        )

    async def _load_store(self) -> str:
        try:
            self._store = await asyncio.to_thread(
                DocumentStore,
                self.settings.home,
                clock=self._clock,
                vector_search=vector_search(self.settings),
            )
        finally:
            self._store_tried.set()
        return ""

    async def _load_keywords(self) -> str:
        """Load the Korean model where there is Korean text; else its first text will."""
        await self._store_tried.wait()
        if self._store is not None and await asyncio.to_thread(self._store.words.hold_hangul):
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
            lanes=self.settings.lanes,
            observer=self.observer,
        )
        self._ingest = None
        return plan.model

    async def _load_reranker(self) -> str:
        group = self._assembled("reranker")
        plan = await group.load()
        self._reranker = group
        self._reranking = RerankingService(
            group,
            languages=plan.languages,
            lanes=self.settings.lanes,
            observer=self.observer,
        )
        return plan.model

    async def _load_generator(self) -> str:
        slot = self._generator or GeneratorSlot(
            self._backends,
            settings=self.settings,
            clock=self._clock,
            observer=self.observer,
            on_state=self._generator_state,
        )
        model = await slot.load()
        self._generator = slot
        return model

    def _recording(self) -> Recorder:
        kept = self.settings.telemetry
        return Recorder(
            lambda rows: self.store.metrics.insert(rows),
            trim=lambda *, before, keep: self.store.metrics.trim(before=before, keep=keep),
            retention=Retention(kept.retention_days, kept.retention_rows),
            clock=self._clock,
        )

    def _cached(self, lane: EncoderLane) -> EncoderLane:
        return lane if self._cache is None else CachedLane(lane, self._cache)

    def _need(self, part: _T | None, name: Component) -> _T:
        if part is None:
            raise self._loading.absent(name)
        return part

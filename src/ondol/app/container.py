"""Builds every service from settings, once, and owns its lifetime.

What takes time to load is in ``components``; a service asked for too early raises ``NotReady`` with
the reason. ``cli`` and ``server`` know no concrete class but this.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from ondol.answers.ask import AskService
from ondol.answers.prompts import standing_prefixes
from ondol.answers.rewriting import QueryRewriter
from ondol.app.components import Components, Model, Parts, Readiness
from ondol.app.lane_report import lane_report
from ondol.core.clock import SystemClock
from ondol.core.events import Observer
from ondol.core.lane_state import LaneSnapshot
from ondol.core.machine import Machine
from ondol.core.settings import Settings
from ondol.documents.ingest import IngestService
from ondol.documents.keywords import KeywordService
from ondol.documents.readers.reader_process import IsolatedReader
from ondol.jobs.feed import JobFeed
from ondol.jobs.job_service import Jobs
from ondol.jobs.job_store import JobStore
from ondol.jobs.work import TaskWork, Work
from ondol.language.korean import KeywordAnalyzer
from ondol.models.library import ModelLibrary
from ondol.runtime.backend_factory import BackendFactory
from ondol.runtime.embedding_cache.cache_memory import CacheStats
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.runtime.encoders.encoder_group import EncoderGroup
from ondol.runtime.encoders.reranking import RerankingService
from ondol.runtime.generation.chat import ChatService
from ondol.runtime.generation.generator_slot import GeneratorSlot
from ondol.runtime.interactive_traffic import InteractiveTraffic
from ondol.runtime.lane_semaphore import LaneSemaphore
from ondol.search.retrieval import RetrievalService
from ondol.store.documents import DocumentStore
from ondol.tasks.pack_library import PackLibrary
from ondol.tasks.step_context import StepContext
from ondol.tasks.task_service import TaskService
from ondol.telemetry.metric_rows import MetricStore
from ondol.telemetry.recorder import RecorderStats


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
        clock = SystemClock()
        self._traffic = InteractiveTraffic(inside=self._interactive, clock=clock)
        self._components = Components(
            settings,
            parts=parts or Parts(),
            observers=[self._traffic] if observer is None else [observer, self._traffic],
            backends=backends,
            analyzer=analyzer,
            clock=clock,
            prefixes=standing_prefixes(),
        )
        self.observer: Observer = self._components.observer
        self.library: ModelLibrary = self._components.backends.library
        self.machine: Machine = self._components.backends.machine
        self._clock = clock
        self._analyzer = self._components.analyzer
        self.searches = LaneSemaphore("search", settings.lanes.search, clock=self._clock)
        self._reader = IsolatedReader()
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
            self._components.raise_first()
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
        await self._components.start()

    async def close(self, *, drain_seconds: float = 0.0) -> None:
        """Stop admitting, let what runs finish up to ``drain_seconds``, release everything."""
        try:
            await self._components.close(drain_seconds=drain_seconds)
        finally:
            await asyncio.to_thread(self._reader.close)
        self._jobs = None

    def readiness(self) -> Readiness:
        """Return the state of every component now; a model's follows its slot or process."""
        return self._components.readiness()

    async def reload(self, component: Model, *, form: str = "auto") -> None:
        """Load a component anew beside the running one, then swap; raises if it cannot load.

        ``form`` names the form of an encoder; ``auto`` is what the settings say.
        """
        await self._components.reload(component, form=form)

    @property
    def store(self) -> DocumentStore:
        return self._components.need(self._components.store, "store")

    @property
    def embedding(self) -> EmbeddingService:
        return self._components.need(self._components.embedding, "embedder")

    @property
    def reranking(self) -> RerankingService:
        return self._components.need(self._components.reranking, "reranker")

    @property
    def generation(self) -> GeneratorSlot:
        return self._components.need(self._components.generator, "generator")

    @property
    def chat(self) -> ChatService:
        return ChatService(self.generation, model=self.generation.model)

    @property
    def retrieval(self) -> RetrievalService:
        return self.retrieval_over(self.store, self.embedding if self._components.embeds else None)

    def retrieval_over(
        self, store: DocumentStore, embedding: EmbeddingService | None
    ) -> RetrievalService:
        """Return search in ``store``, perhaps a view of this one's, by another embedder's vectors."""
        return RetrievalService(
            store,
            embedding,
            self._analyzer,
            settings=self.settings.retrieval,
            reranking=self._components.reranking,
            lanes=self.settings.lanes,
            permit=self.searches,
            clock=self._clock,
            observer=self.observer,
        )

    @property
    def ingest(self) -> IngestService:
        embedding = self.embedding
        if self._ingest is None or self._ingest.embedding is not embedding:
            self._ingest = IngestService(
                self.store,
                embedding,
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
            shelf = PackLibrary.open(self.settings.home, given.packs)
            bench = StepContext(self, home=self.settings.home, settings=given, clock=self._clock)
            self._tasks = TaskService(shelf, bench, clock=self._clock)
        return self._tasks

    @property
    def jobs(self) -> Jobs:
        """Jobs, of which nobody works any until a runner is started."""
        if self._jobs is None:
            self._jobs = Jobs(
                JobStore(self.store.database),
                self._work or TaskWork(lambda: self.tasks),
                home=self.settings.home,
                settings=self.settings.jobs,
                clock=self._clock,
                feed=JobFeed(),
                traffic=self._traffic,
            )
        return self._jobs

    @property
    def analyzer(self) -> KeywordAnalyzer:
        """What turns texts and queries into keywords; it loads what it needs at its first text."""
        return self._analyzer

    @property
    def metrics(self) -> MetricStore:
        """The rows of finished requests, in the store's file."""
        return self._components.metrics

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
        return self._components.backends.generator_reason

    @property
    def encoders(self) -> dict[str, EncoderGroup]:
        """The encoders that have been loaded, by component."""
        return self._components.encoders

    @property
    def loaded_generator(self) -> GeneratorSlot | None:
        """The generator, if there is one and it has been loaded."""
        return self._components.generator

    @property
    def models(self) -> dict[str, EncoderGroup | GeneratorSlot]:
        """Every model that has been loaded, by component; a cold one is loaded by its next use."""
        slot = self.loaded_generator
        generator = {} if slot is None else {"generator": slot}
        return {**self.encoders, **generator}

    def lanes(self) -> dict[str, LaneSnapshot]:
        """Return every lane as it is now."""
        return lane_report(
            self.settings.lanes,
            generator=self.loaded_generator,
            searches=self.searches.snapshot(),
            encoders=self.encoders,
        )

    @property
    def recorder_stats(self) -> RecorderStats:
        """What the recorder of finished requests has written and lost; zeros where it is off."""
        return (
            RecorderStats()
            if self._components.recorder is None
            else self._components.recorder.stats()
        )

    @property
    def cache_stats(self) -> list[CacheStats]:
        """What each tier of the embedding cache holds and has done; empty where it is off."""
        return [] if self._components.cache is None else self._components.cache.stats()

    def context_tokens(self) -> int:
        """Return the passage budget in tokens: what the generator reads in ``answer.read_seconds``."""
        return self._components.backends.passage_budget(self.settings.answer.read_seconds)

    def _interactive(self) -> int:
        slot = self.loaded_generator
        return 0 if slot is None else slot.interactive()

"""What a process loads, side by side, and how each stands: store, models, keywords, recorder.

Failures become states; ``need`` raises ``NotReady`` for what does not stand yet, with the reason.
Each is loaded once, may be loaded anew beside the running one, and is released by ``close``.

Whether requests can be served: the state of every component, from its loading to its running.

``/health/ready`` tells it. A component that fails to load becomes a state, so that what loaded can
serve; ``Loading.raise_first`` is for callers that need all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from ondol.app.store_assembly import open_documents
from ondol.backends.protocols import GeneratorHealth
from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput, NotFound, NotReady, OfflineMissing, OndolError
from ondol.core.events import ModelStateChanged, Observer, Observers
from ondol.core.process import LoadGauge
from ondol.core.settings import Settings
from ondol.core.timers import LoopTimers
from ondol.core.types import Message
from ondol.language.korean import KeywordAnalyzer
from ondol.runtime.backend_factory import BackendFactory
from ondol.runtime.embedding_cache.embedding_cache import CachedLane, CacheTiers
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.runtime.encoders.encoder_assembly import assemble
from ondol.runtime.encoders.encoder_group import EncoderEnvironment, EncoderGroup
from ondol.runtime.encoders.encoder_lane import EncoderLane
from ondol.runtime.encoders.reranking import RerankingService
from ondol.runtime.generation.generator_slot import GeneratorSlot
from ondol.runtime.slot import SlotState
from ondol.search.vector_choice import vector_search
from ondol.store.collection_words import KeywordStore
from ondol.store.documents import DocumentStore
from ondol.telemetry.metric_rows import MetricStore
from ondol.telemetry.recorder import Recorder, Retention

_log = logging.getLogger("ondol.container")

UNLOADED = "unloaded while idle; the next request loads it"

Component = Literal["store", "embedder", "reranker", "keywords", "generator"]

Load = Callable[[], Awaitable[str]]
"""Loads one component and returns the id of its model, empty where it has none."""


@dataclass(frozen=True, slots=True)
class ComponentState:
    """One component: what it runs, and why it is not ready where it is not.

    ``fallback`` says why an encoder's ``form`` is not the one that was chosen.
    """

    state: Literal["off", "loading", "ready", "failed"]
    model: str = ""
    reason: str = ""
    seconds: float = 0.0
    form: str = ""
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be served: every component that is not off is ready."""

    ready: bool
    components: dict[str, ComponentState]


def state_of_encoders(group: EncoderGroup, loaded: ComponentState) -> ComponentState:
    """Return the component's state from its slots: cold counts as ready, the next request loads."""
    slots = group.slots
    failed = next((slot for slot in slots if slot.state is SlotState.FAILED), None)
    state = replace(
        loaded,
        form=slots[0].form,
        fallback="; ".join(dict.fromkeys(slot.fallback for slot in slots if slot.fallback)),
    )
    if failed is not None:
        return replace(state, state="failed", reason=failed.error)
    if all(slot.state is SlotState.COLD for slot in slots):
        return replace(state, reason=UNLOADED)
    return state


def state_of_generator(slot: GeneratorSlot, loaded: ComponentState) -> ComponentState:
    """Return the generator's state from its slot and, where it is loaded, from its process."""
    if slot.state is SlotState.FAILED:
        return replace(loaded, state="failed", reason=str(slot.failure))
    health = slot.health()
    if health is None:
        return replace(loaded, reason=UNLOADED)
    if health.ready:
        return loaded
    return ComponentState(
        "failed" if health.state == "failed" else "loading",
        model=loaded.model,
        reason=f"{health.state}: {health.reason}".strip(": "),
    )


class Loading:
    """``dispensable`` says of a component and an error whether the rest can do without it."""

    def __init__(
        self,
        *,
        dispensable: Callable[[str, Exception], bool],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.states: dict[str, ComponentState] = {}
        self._dispensable = dispensable
        self._failures: list[Exception] = []
        self._clock = clock
        self._observer = observer

    async def start(self, wanted: Mapping[str, tuple[bool, Load]]) -> None:
        """Load side by side what is wanted; the others are ``off``."""
        for name, (on, _) in wanted.items():
            self.states[name] = ComponentState("loading" if on else "off")
        await asyncio.gather(*(self._load(name, load) for name, (on, load) in wanted.items() if on))

    def raise_first(self) -> None:
        """Raise the first failure, if there was one."""
        for error in self._failures:
            raise error

    def absent(self, name: Component) -> NotReady:
        """Return what a request is told that needs a component which does not stand."""
        state = self.states.get(name, ComponentState("loading"))
        if state.state == "failed":
            return NotReady(
                f"the {name} could not be loaded: {state.reason}",
                retry_after=30,
                hint="see /health/ready, or run `ondol doctor`",
            )
        if state.state == "off":
            return NotReady(
                f"no {name} is loaded. {state.reason}".strip(),
                retry_after=60,
                hint="see `ondol doctor --settings`",
            )
        return NotReady(f"the {name} is still loading", retry_after=2, hint="try again shortly")

    async def _load(self, name: str, load: Load) -> None:
        started = self._clock.monotonic()
        try:
            model = await load()
        except Exception as error:
            if not isinstance(error, OndolError):
                _log.exception("%s failed to load", name)
            reason = f"{error} {getattr(error, 'hint', '')}".strip()
            if self._dispensable(name, error):
                _log.warning("doing without the %s: %s", name, reason)
                self.states[name] = ComponentState("off", reason=reason)
                return
            self.states[name] = ComponentState("failed", reason=reason)
            self._failures.append(error)
            self._observer.observe(ModelStateChanged(model=name, state="failed", reason=reason))
            return
        seconds = self._clock.monotonic() - started
        self.states[name] = ComponentState("ready", model=model, seconds=seconds)
        self._observer.observe(
            ModelStateChanged(model=model or name, state="ready", seconds=seconds)
        )


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
        self._shared = EncoderEnvironment(self.clock, LoopTimers(), self.observer, LoadGauge())
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

"""The users of ``Slot`` as the contract sees them: encoders and the generator, over fakes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.backends.fake_generator import FakeGenerator
from ondol.backends.protocols import Generator, GeneratorHealth
from ondol.core.clock import ManualClock
from ondol.core.events import Event, ModelStateChanged
from ondol.core.settings import Settings
from ondol.core.timers import ManualTimers
from ondol.core.types import Encoded, FloatMatrix, GenerationRequest, Message, TokenEvent
from ondol.models.form_choice import FormChoice
from ondol.runtime.backend_factory import BackendFactory
from ondol.runtime.encoders.batcher import BatcherLimits
from ondol.runtime.encoders.encoder_plan import LoadedEncoder
from ondol.runtime.encoders.encoder_slot import EncoderSlot
from ondol.runtime.generation.generator_slot import GeneratorSlot
from ondol.runtime.slot import Slot, SlotLimits

PREFIXES = [[Message("system", "a standing instruction")]]


class Held:
    """A model that works only while ``open``, and says when it has begun and was closed."""

    def __init__(self) -> None:
        self.open, self.begun, self.closed = (threading.Event() for _ in range(3))
        self.open.set()

    def close(self) -> None:
        self.closed.set()


class HeldEncoder(Held, FakeEmbedder):
    def __init__(self, form: str) -> None:
        Held.__init__(self)
        FakeEmbedder.__init__(self, form=form)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self.begun.set()
        assert self.open.wait(20)
        return super().run(batch)


class HeldGenerator(Held, FakeGenerator):
    def __init__(self, name: str) -> None:
        Held.__init__(self)
        FakeGenerator.__init__(self, script=self._answer, prefill_gate=self.open, slots=64)
        self.preloaded: Sequence[Sequence[Message]] = ()
        self._name = name

    def _answer(self, request: GenerationRequest) -> list[str]:
        self.begun.set()
        return [self._name]

    def preload(self, prefixes: Sequence[Sequence[Message]]) -> None:
        self.preloaded = prefixes

    def close(self) -> None:
        Held.close(self)
        FakeGenerator.close(self)


class Subject(ABC):
    """A slot on a clock of its own; the test holds and breaks its loads.

    ``tries`` counts loads; ``begun`` is set by one, which goes on while ``open`` is; ``error`` is
    what it raises. The n-th model that was ``built`` answers ``v{n}``.
    """

    slot: Slot[Any]

    def __init__(self, *, keep_alive: float = 0.0, wait_seconds: float = 20.0) -> None:
        self.keep_alive, self.wait_seconds = keep_alive, wait_seconds
        self.clock = ManualClock()
        self.timers = ManualTimers(self.clock)
        self.events: list[Event] = []
        self.built: list[Any] = []
        self.error: Exception | None = None
        self.tries = 0
        self.begun, self.open = threading.Event(), threading.Event()
        self.open.set()

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, ModelStateChanged)]

    @abstractmethod
    async def ask(self) -> str:
        """Send one request and return who answered."""

    def _build(self, make: Callable[[str], Any]) -> Any:
        self.tries += 1
        self.begun.set()
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error
        self.built.append(make(f"v{len(self.built)}"))
        return self.built[-1]


class EncoderSubject(Subject):
    slot: EncoderSlot

    def __init__(self, **options: float) -> None:
        super().__init__(**options)
        self.slot = EncoderSlot(
            self._load,
            name="fake-embedder",
            limits=BatcherLimits(queue_seconds=self.wait_seconds),
            keep_alive=self.keep_alive,
            clock=self.clock,
            timers=self.timers,
            observer=self,
        )

    async def ask(self) -> str:
        result = await self.slot.submit(["a text"])
        assert result.spec is not None
        assert not isinstance(result.values[0], Exception)
        return result.spec.form

    def _load(self) -> LoadedEncoder:
        encoder = self._build(HeldEncoder)
        return LoadedEncoder(encoder, FormChoice(encoder.spec.form, "the test says so", threads=1))


class _Backends(BackendFactory):
    def __init__(self, settings: Settings, build: Callable[[], Generator]) -> None:
        super().__init__(settings, fake=True)
        self._build = build

    def generator(self, *, on_state: Callable[[GeneratorHealth], None]) -> Generator:
        return self._build()


class GeneratorSubject(Subject):
    slot: GeneratorSlot

    def __init__(self, **options: float) -> None:
        super().__init__(**options)
        settings = Settings.model_validate({"home": Path("nowhere")})
        self.slot = GeneratorSlot(
            _Backends(settings, lambda: self._build(HeldGenerator)),
            settings=settings,
            prefixes=PREFIXES,
            limits=SlotLimits(wait_seconds=self.wait_seconds, keep_alive=self.keep_alive),
            clock=self.clock,
            timers=self.timers,
            observer=self,
        )

    async def ask(self) -> str:
        request = GenerationRequest([Message("user", "a text")])
        events = [event async for event in self.slot.stream(request)]
        return "".join(event.text for event in events if isinstance(event, TokenEvent))


SUBJECTS: dict[str, type[Subject]] = {"encoder": EncoderSubject, "generator": GeneratorSubject}

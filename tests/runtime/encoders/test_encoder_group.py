"""A component's encoders: purposes, falling back, reloading as another form, A/B trials."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import numpy as np
import pytest

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.backends.protocols import EncoderBackend
from ondol.core.clock import SystemClock
from ondol.core.errors import BackendError, InvalidInput, ModelError
from ondol.core.events import CandidateCompared, Event, FormFellBack
from ondol.core.process import LoadGauge
from ondol.core.settings.sections import AbSettings, ModelSettings
from ondol.core.timers import LoopTimers
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.models.agreement import cosines, kendall_tau
from ondol.models.form_choice import FormChoice
from ondol.runtime.encoders.batcher import BatcherLimits, BatchResult
from ondol.runtime.encoders.encoder_group import EncoderEnvironment, EncoderGroup
from ondol.runtime.encoders.encoder_plan import EncoderPlan
from ondol.runtime.encoders.encoder_trial import SHADOWS, in_share
from ondol.runtime.encoders.fake_encoders import FakeEncoders


class Source:
    """Fakes in the forms the test says; ``make`` replaces what is loaded."""

    def __init__(
        self,
        query: str = "fake:fp32",
        bulk: str | None = None,
        *,
        role: Literal["embedder", "reranker"] = "embedder",
        model: str = "fake",
        make: Callable[[FormChoice], EncoderBackend] | None = None,
    ) -> None:
        self.query, self.bulk, self.model = query, bulk, model
        self._fakes = FakeEncoders(role)
        self._role = role
        self._make = make or self._fakes.encoder

    def plan(self, *, form: str = "auto") -> EncoderPlan:
        if form == "fake:unknown":
            raise ModelError("no such form", hint="take another", param="models.form")
        query, bulk = (self.query, self.bulk) if form == "auto" else (form, None)
        return EncoderPlan(
            model=self.model,
            role=self._role,
            query=FormChoice(query, "the test says so", threads=1),
            bulk=FormChoice(bulk, "the test says so", threads=1) if bulk else None,
            reference=FormChoice("fake:fp32", "the reference form", threads=1),
            space="fake",
        )

    def encoder(self, choice: FormChoice) -> EncoderBackend:
        return self._make(choice)

    def weight_bytes(self, form: str) -> int:
        return 11

    def fidelity(self, form: str) -> Mapping[str, float]:
        return {"cosine_mean": 0.999}


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


class Off(FakeEmbedder):
    """Nearly the same vectors as the fake's."""

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        rows = super().run(batch)
        rows[:, 1] += 0.25
        return rows


@asynccontextmanager
async def opened(
    source: Source,
    *,
    candidate: Source | None = None,
    listener: Listener | None = None,
    **ab: Any,
) -> AsyncIterator[EncoderGroup]:
    group = EncoderGroup(
        ab.get("component", "embedder"),
        source,
        settings=ModelSettings(),
        limits=BatcherLimits(),
        shared=EncoderEnvironment(SystemClock(), LoopTimers(), listener or Listener(), LoadGauge()),
        candidate=candidate,
        ab=AbSettings.model_validate({"candidate": "fake:two", **ab}),
    )
    try:
        await group.load()
        yield group
    finally:
        await group.close()


def form_of(result: BatchResult) -> str:
    assert result.spec is not None
    return result.spec.form


async def test_each_purpose_has_its_form() -> None:
    async with opened(Source("fake:int8", "fake:bf16")) as group:
        assert form_of(await group.submit(["a"])) == "fake:int8"
        assert form_of(await group.submit(["a"], urgent=False)) == "fake:bf16"
        assert [slot.purpose for slot in group.slots] == ["query", "bulk"]


async def test_a_reload_takes_a_new_plan_of_purposes() -> None:
    source = Source("fake:int8", "fake:bf16")
    async with opened(source) as group:
        source.query, source.bulk = "fake:one", None
        await group.reload()
        assert form_of(await group.submit(["a"], urgent=False)) == "fake:one"
        source.bulk = "fake:two"
        await group.reload()
        assert form_of(await group.submit(["a"], urgent=False)) == "fake:two"


async def test_bulk_work_survives_the_end_of_its_slot() -> None:
    source = Source("fake:int8", "fake:bf16")
    stop = asyncio.Event()

    async def ask() -> int:
        done = 0
        while not stop.is_set():
            await group.submit(["a", "b"], urgent=False)
            done += 1
        return done

    async with opened(source) as group:
        callers = [asyncio.create_task(ask()) for _ in range(4)]
        for turn in range(6):
            source.bulk = None if turn % 2 else "fake:bf16"
            await group.reload()
        stop.set()
        assert min(await asyncio.gather(*callers)) > 0


def broken(choice: FormChoice) -> EncoderBackend:
    if choice.form != "fake:fp32":
        raise ModelError("the file is damaged", hint="make it anew")
    return FakeEmbedder(form=choice.form)


class Nonsense(FakeEmbedder):
    """Loads, and fails at its first batch."""

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        raise BackendError("not finite", hint="")


def breaks_when_run(choice: FormChoice) -> EncoderBackend:
    make = FakeEmbedder if choice.form == "fake:fp32" else Nonsense
    return make(form=choice.form)


@pytest.mark.parametrize(("make", "said"), [(broken, "damaged"), (breaks_when_run, "not finite")])
async def test_a_form_that_fails_gives_way_to_the_reference(
    make: Callable[[FormChoice], EncoderBackend], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()
    async with opened(Source("fake:int8", make=make), listener=listener) as group:
        assert form_of(await group.submit(["a"])) == "fake:fp32"
        (slot,) = group.slots
        assert said in slot.fallback
        assert slot.fallback.startswith("fake:int8 failed")
    fell = [event for event in listener.events if isinstance(event, FormFellBack)]
    assert [(event.wanted, event.used) for event in fell] == [("fake:int8", "fake:fp32")]
    assert said in caplog.text


async def test_a_reference_that_fails_is_an_error() -> None:
    def nothing(choice: FormChoice) -> EncoderBackend:
        raise ModelError("out of memory", hint="")

    with pytest.raises(ModelError, match="out of memory"):
        async with opened(Source("fake:int8", make=nothing)):
            pass


async def test_a_form_that_is_named_does_not_fall_back() -> None:
    async with opened(Source("fake:fp32", make=broken)) as group:
        with pytest.raises(ModelError, match="damaged"):
            await group.reload(form="fake:int8")
        with pytest.raises(InvalidInput, match="no such form"):
            await group.reload(form="fake:unknown")
        assert form_of(await group.submit(["a"])) == "fake:fp32"


async def compared(group: EncoderGroup) -> None:
    assert group.trial is not None
    await group.trial.idle()


async def test_a_shadow_compares_and_never_answers() -> None:
    listener = Listener()
    second = Source("fake:two", make=lambda choice: Off(form=choice.form))
    async with opened(Source(), candidate=second, listener=listener, share=1.0) as group:
        for n in range(4):
            result = await group.submit([f"text {n}", "another text"])
            assert form_of(result) == "fake:fp32"
        await compared(group)
        assert group.ab is not None
        figures = group.ab.figures
        assert (figures.primary.requests, figures.candidate.requests) == (4, 4)
        assert figures.candidate.p95_ms is not None
        assert figures.agreement is not None
        assert figures.agreement.compared == 8
        assert figures.agreement.least is not None
        assert 0.9 < figures.agreement.least < 1
        assert figures.errors == figures.dropped == 0
    seen = [event for event in listener.events if isinstance(event, CandidateCompared)]
    assert [event.outcome for event in seen] == ["shadowed"] * 4
    assert all(event.agreement and event.agreement < 1 for event in seen)


async def test_a_shadow_that_hangs_or_fails_touches_no_answer() -> None:
    gate = threading.Event()

    class Hanging(FakeEmbedder):
        hanging = False

        def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
            if self.hanging:
                assert gate.wait(20)
                raise BackendError("broken", hint="")
            Hanging.hanging = True
            return super().run(batch)

    second = Source("fake:two", make=lambda choice: Hanging(form=choice.form))
    async with opened(Source(), candidate=second, share=1.0) as group:
        for n in range(SHADOWS + 8):
            assert form_of(await group.submit([f"text {n}"])) == "fake:fp32"
        assert group.ab is not None
        assert group.ab.figures.dropped >= 7
        gate.set()
        await compared(group)
        assert group.ab.figures.errors >= SHADOWS
        assert group.ab.figures.candidate.requests == 0


async def test_a_split_sends_a_share_and_the_same_request_always_alike() -> None:
    second = Source("fake:two")
    async with opened(Source(), candidate=second, share=0.4, mode="split") as group:
        await group_ready(group)
        forms = [form_of(await group.submit([f"text {n}"])) for n in range(200)]
        assert forms == [form_of(await group.submit([f"text {n}"])) for n in range(200)]
        assert 50 < forms.count("fake:two") < 110
        assert group.ab is not None
        assert group.ab.figures.candidate.requests == 2 * forms.count("fake:two")


async def group_ready(group: EncoderGroup) -> None:
    async with asyncio.timeout(20):
        while group.ab is None or group.ab.slot.loads == 0:
            await asyncio.sleep(0)


async def test_a_split_whose_candidate_fails_is_answered_all_the_same() -> None:
    class Fails(FakeEmbedder):
        runs = 0

        def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
            Fails.runs += 1
            if Fails.runs > 1:
                raise BackendError("broken", hint="")
            return super().run(batch)

    second = Source("fake:two", make=lambda choice: Fails(form=choice.form))
    async with opened(Source(), candidate=second, share=1.0, mode="split") as group:
        await group_ready(group)
        result = await group.submit(["a", "b"])
        assert form_of(result) == "fake:fp32"
        assert all(isinstance(value, np.ndarray) for value in result.values)
        assert group.ab is not None
        assert group.ab.figures.errors == 1


async def test_a_candidate_that_cannot_load_is_told_and_costs_nothing() -> None:
    async with opened(
        Source(), candidate=Source("fake:two", make=broken), share=1.0, mode="split"
    ) as group:
        assert form_of(await group.submit(["a"])) == "fake:fp32"
        async with asyncio.timeout(20):
            while group.ab is None or not group.ab.error:
                await asyncio.sleep(0)
        assert "damaged" in group.ab.error


async def test_rerankers_are_compared_by_their_order() -> None:
    first = Source(role="reranker")
    second = Source("fake:two", role="reranker", model="another")
    async with opened(first, candidate=second, component="reranker", share=1.0) as group:
        documents = ["the bus leaves", "lunch at noon", "when the bus leaves"]
        await group.submit([Pair("when does the bus leave", text) for text in documents])
        await compared(group)
        assert group.ab is not None
        agreement = group.ab.figures.agreement
        assert agreement is not None
        assert (agreement.measure, agreement.mean, agreement.same_first) == (
            "kendall_tau",
            1.0,
            1.0,
        )


def test_the_measures() -> None:
    assert kendall_tau([3.0, 2.0, 1.0], [30.0, 20.0, 10.0]) == 1.0
    assert kendall_tau([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == -1.0
    assert kendall_tau([3.0, 2.0, 1.0], [2.0, 3.0, 1.0]) == pytest.approx(1 / 3)
    assert kendall_tau([2.0, 1.0, 1.0], [2.0, 1.0, 1.0]) == pytest.approx(1.0)
    rows = np.asarray([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    assert cosines(rows, rows[::-1]).tolist() == [0.0, 0.0]
    assert cosines(rows, 3 * rows).tolist() == [1.0, 1.0]


def test_the_share_is_of_requests_by_their_content() -> None:
    assert all(in_share([f"{n}"], share=1.0) for n in range(50))
    assert not any(in_share([f"{n}"], share=0.0) for n in range(50))
    taken = sum(in_share([Pair("q", str(n))], share=0.25) for n in range(1000))
    assert 200 < taken < 300

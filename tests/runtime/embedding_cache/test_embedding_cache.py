from __future__ import annotations

import asyncio
import threading
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.backends.protocols import EncoderSpec
from ondol.core.clock import ManualClock
from ondol.core.errors import BackendError, NotReady, OndolError, TextTooLong
from ondol.core.events import CacheTierChanged, EmbeddingsLookedUp, Event, Timing
from ondol.core.settings import Settings
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.runtime.embedding_cache.cache_memory import (
    KEY_BYTES,
    CachedVector,
    CacheStats,
    MemoryEmbeddingCache,
)
from ondol.runtime.embedding_cache.embedding_cache import CachedLane, CacheTiers, keys_of
from ondol.runtime.encoders.batcher import Batcher, BatcherLimits, BatchResult
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.telemetry.metrics import Metrics


class Embedder(FakeEmbedder):
    """A fake with a fingerprint, whose batches can be held back."""

    def __init__(self, *, fingerprint: str = "f00d", form: str = "fake:fp32") -> None:
        super().__init__(form=form, max_tokens=40)
        self._known = replace(super().spec, fingerprint=fingerprint)
        self.texts: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.running = threading.Event()

    @property
    def spec(self) -> EncoderSpec:
        return self._known

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        self.texts += [str(item) for item in items]
        return super().tokenize(items, truncate=truncate)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self.running.set()
        self.go.wait()
        return super().run(batch)


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)

    @property
    def lookups(self) -> list[tuple[int, int, int, int]]:
        return [
            (e.memory, e.durable, e.joined, e.misses)
            for e in self.events
            if isinstance(e, EmbeddingsLookedUp)
        ]


class Far(MemoryEmbeddingCache):
    """A durable tier that counts what it is asked, and may hang."""

    def __init__(self) -> None:
        super().__init__(limit_bytes=2**20)
        self.asked: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        self.asked.append(len(keys))
        self.go.wait()
        return super().get_many(keys)

    def stats(self) -> CacheStats:
        return replace(super().stats(), tier="sqlite")


class Stage:
    """One embedder behind a cache."""

    def __init__(self, encoder: Embedder, tiers: CacheTiers, heard: Heard) -> None:
        self.encoder = encoder
        self.tiers = tiers
        self.heard = heard
        self.batcher = Batcher(encoder, limits=BatcherLimits())
        self.lane = CachedLane(self.batcher, tiers)
        self.service = EmbeddingService(
            self.lane, query_prefix="query: ", document_prefix="passage: "
        )


@asynccontextmanager
async def stage(
    encoder: Embedder | None = None, *, far: Far | None = None, tiers: CacheTiers | None = None
) -> AsyncIterator[Stage]:
    heard = Heard()
    near = MemoryEmbeddingCache(limit_bytes=2**20)
    # A clock that stands still makes every look-up free, so that it is always worth it.
    own = tiers or CacheTiers(near, far, observer=heard, clock=ManualClock())
    made = Stage(encoder or Embedder(), own, heard)
    yield made
    made.encoder.go.set()
    await made.batcher.close()
    if far is not None:
        far.go.set()
    if tiers is None:
        made.tiers.close()


async def ran(encoder: Embedder) -> None:
    """Wait until the encoder is in a batch."""
    await asyncio.to_thread(encoder.running.wait)


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_text_seen_before_does_not_reach_the_encoder_and_is_the_same() -> None:
    async with stage() as on:
        timing = Timing()
        first = await on.service.embed(["온돌은 따뜻하다", "a warm floor"], role="document")
        again = await on.service.embed(
            ["온돌은 따뜻하다", "a warm floor"], role="document", timing=timing
        )
        assert again.vectors.tobytes() == first.vectors.tobytes()
        assert again.tokens == first.tokens > 0
        assert len(on.encoder.texts) == 2
        assert (timing.cached_items, timing.inference_ms) == (2, 0)
        assert on.heard.lookups == [(0, 0, 0, 2), (2, 0, 0, 0)]


async def test_hits_and_misses_come_back_in_the_order_of_the_request() -> None:
    texts = [f"글 {n}" for n in range(12)]
    async with stage() as on, stage() as plain:
        await on.service.embed(texts[::3], role="document")
        mixed = await on.service.embed(texts, role="document")
        whole = await plain.service.embed(texts, role="document")
        assert mixed.vectors.tobytes() == whole.vectors.tobytes()
        assert mixed.tokens == whole.tokens
        assert len(on.encoder.texts) == 12


async def test_a_text_said_twice_in_one_request_is_computed_once() -> None:
    async with stage() as on:
        result = await on.service.embed(["a", "b", "a", "a"], role="query")
        assert on.encoder.texts == ["query: a", "query: b"]
        assert (result.vectors[0] == result.vectors[2]).all()
        assert (result.vectors[0] != result.vectors[1]).any()
        single = await on.service.embed(["a"], role="query")
        pair = await on.service.embed(["b"], role="query")
        assert result.tokens == 3 * single.tokens + pair.tokens


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("가나다", unicodedata.normalize("NFD", "가나다")),
        ("a b", "a  b"),
        ("a", "a "),
        ("Word", "word"),
        ("ﬁn", "fin"),
        ("a\n", "a\r\n"),
    ],
)
async def test_texts_that_only_look_alike_are_not_taken_for_each_other(
    one: str, other: str
) -> None:
    async with stage() as on:
        await on.service.embed([one], role="document")
        await on.service.embed([other], role="document")
        assert len(on.encoder.texts) == 2


async def test_query_and_document_differ_by_their_prefix() -> None:
    async with stage() as on:
        await on.service.embed(["a"], role="document")
        await on.service.embed(["a"], role="query")
        assert on.encoder.texts == ["passage: a", "query: a"]


async def test_forms_and_models_share_nothing() -> None:
    tiers = CacheTiers(MemoryEmbeddingCache(limit_bytes=2**20))
    made = [
        Embedder(),
        Embedder(form="fake:int8"),
        Embedder(fingerprint="beef"),
        Embedder(),
    ]
    for encoder in made:
        async with stage(encoder, tiers=tiers) as on:
            await on.service.embed(["a"], role="query")
    assert [len(encoder.texts) for encoder in made] == [1, 1, 1, 0]
    tiers.close()


async def test_without_a_fingerprint_nothing_is_kept() -> None:
    async with stage(Embedder(fingerprint="")) as on:
        await on.service.embed(["a"], role="query")
        await on.service.embed(["a"], role="query")
        assert len(on.encoder.texts) == 2
        assert on.tiers.stats()[0].entries == 0


async def test_a_text_that_was_cut_does_not_answer_for_one_that_must_not_be() -> None:
    long = "word " * 100
    async with stage() as on:
        await on.service.embed([long], role="query", truncate=True)
        for _ in range(2):
            with pytest.raises(TextTooLong) as caught:
                await on.service.embed(["short", long], role="query")
            assert caught.value.param == "input[1]"
        await on.service.embed([long], role="query", truncate=True)
        assert len([text for text in on.encoder.texts if "word" in text]) == 3


async def test_errors_are_not_kept_and_stay_with_their_text() -> None:
    async with stage() as on:
        for _ in range(2):
            rows = await on.service.embed_each(["good", "<<fail>>", "<<fail>>"], role="document")
            assert isinstance(rows[1], BackendError)
            assert isinstance(rows[2], BackendError)
            assert not isinstance(rows[0], OndolError)
        assert on.encoder.texts.count("passage: <<fail>>") == 2
        assert on.encoder.texts.count("passage: good") == 1


async def test_dimensions_are_cut_after_the_cache() -> None:
    async with stage() as on:
        whole = await on.service.embed(["a b c"], role="query")
        short = await on.service.embed(["a b c"], role="query", dimensions=8)
        assert len(on.encoder.texts) == 1
        expected = whole.vectors[:, :8] / np.linalg.norm(whole.vectors[:, :8])
        assert np.allclose(short.vectors, expected)


async def test_token_ids_and_texts_without_bytes_pass_by() -> None:
    async with stage() as on:
        for _ in range(2):
            await on.service.embed([[1, 2, 3]], role="query")
            rows = await on.service.embed_each(["fine", "bad \ud800"], role="document")
            assert isinstance(rows[1], OndolError)
        assert on.heard.lookups == []


# --- one text, many callers -----------------------------------------------------------------


async def test_callers_at_the_same_time_share_one_computation() -> None:
    async with stage() as on:
        on.encoder.go.clear()
        asks = [
            asyncio.create_task(on.service.embed(["same", f"own {n}"], role="query"))
            for n in range(8)
        ]
        await ran(on.encoder)
        on.encoder.go.set()
        results = await asyncio.gather(*asks)
        assert on.encoder.texts.count("query: same") == 1
        assert len({result.vectors[0].tobytes() for result in results}) == 1
        assert sum(joined for *_, joined, _ in on.heard.lookups) == 7


async def test_a_caller_who_leaves_does_not_take_the_others_along() -> None:
    async with stage() as on:
        on.encoder.go.clear()
        first = asyncio.create_task(on.service.embed(["same"], role="query"))
        await ran(on.encoder)
        others = [asyncio.create_task(on.service.embed(["same"], role="query")) for _ in range(3)]
        await settled()
        first.cancel()
        await settled()
        on.encoder.go.set()
        results = await asyncio.gather(*others)
        assert len({result.vectors.tobytes() for result in results}) == 1
        assert on.encoder.texts.count("query: same") == 2
        assert first.cancelled()


async def test_a_follower_who_leaves_does_not_stop_the_computation() -> None:
    async with stage() as on:
        on.encoder.go.clear()
        first = asyncio.create_task(on.service.embed(["same"], role="query"))
        await ran(on.encoder)
        follower = asyncio.create_task(on.service.embed(["same"], role="query"))
        await settled()
        follower.cancel()
        on.encoder.go.set()
        assert (await first).tokens
        await on.service.embed(["same"], role="query")
        assert len(on.encoder.texts) == 1


async def test_an_error_of_the_first_is_not_the_second_callers() -> None:
    async with stage() as on:
        on.encoder.go.clear()
        asks = [asyncio.create_task(on.service.embed(["<<fail>>"], role="query")) for _ in range(3)]
        await ran(on.encoder)
        on.encoder.go.set()
        errors = await asyncio.gather(*asks, return_exceptions=True)
        assert all(isinstance(error, BackendError) for error in errors)
        assert len({id(error) for error in errors}) == 3


async def test_a_query_waits_neither_for_bulk_work_nor_for_a_larger_request() -> None:
    async with stage() as on:
        on.encoder.go.clear()
        bulk = asyncio.create_task(
            on.service.embed([f"t{n}" for n in range(20)], role="query", lane="batch")
        )
        large = asyncio.create_task(
            on.service.embed([f"t{n}" for n in range(10, 30)], role="query")
        )
        await ran(on.encoder)
        await settled()
        lone = asyncio.create_task(on.service.embed(["t15"], role="query"))
        await asyncio.to_thread(_until, lambda: on.encoder.texts.count("query: t15") == 3)
        on.encoder.go.set()
        await asyncio.gather(bulk, large, lone)
        assert on.heard.lookups[-1] is not None
        assert sum(joined for *_, joined, _ in on.heard.lookups) == 0


async def test_requests_that_need_each_others_texts_do_not_wait_for_ever() -> None:
    async with stage() as on:
        on.encoder.go.clear()
        asks = [
            asyncio.create_task(on.service.embed(texts, role="query"))
            for texts in (["a", "b"], ["b", "c"], ["c", "a"], ["a", "b"], ["d", "a"])
        ]
        await ran(on.encoder)
        on.encoder.go.set()
        await asyncio.wait_for(asyncio.gather(*asks), 30)
        assert sorted(set(on.encoder.texts)) == [f"query: {x}" for x in "abcd"]


# --- the encoder changes under way ------------------------------------------------------------


class Swapping:
    """A lane that answers with another form than it says."""

    def __init__(self, lane: Batcher, says: EncoderSpec) -> None:
        self._lane = lane
        self.spec = says

    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult:
        return await self._lane.submit(items, truncate=truncate, urgent=urgent, timing=timing)


async def test_vectors_of_two_forms_are_never_mixed_in_one_answer() -> None:
    async with stage() as on:
        await on.service.embed(["a"], role="query")
        other = Batcher(Embedder(form="fake:int8"), limits=BatcherLimits())
        lane = CachedLane(Swapping(other, on.encoder.spec), on.tiers)
        result = await lane.submit(["query: a", "query: b"])
        assert result.spec is not None
        assert result.spec.form == "fake:int8"
        assert on.tiers.stats()[0].entries == 1
        await other.close()


async def test_a_model_that_was_never_loaded_is_asked_without_the_cache() -> None:
    class Cold(Swapping):
        @property
        def spec(self) -> EncoderSpec:
            raise NotReady("not loaded yet", retry_after=1)

        @spec.setter
        def spec(self, value: EncoderSpec) -> None:
            return None

    async with stage() as on:
        lane = CachedLane(Cold(on.batcher, on.encoder.spec), on.tiers)
        result = await lane.submit(["a"])
        assert len(result.values) == 1


# --- tiers ----------------------------------------------------------------------------------


async def test_the_durable_tier_is_asked_once_for_what_memory_lacks() -> None:
    far = Far()
    async with stage(far=far) as on:
        await on.service.embed(["a", "b"], role="query")
        await on.service.embed(["b", "c"], role="query")
        assert far.asked == [2, 1]
        keys = keys_of(["query: a", "query: b", "query: c"], spec=on.encoder.spec, truncate=False)
        kept = far.get_many(keys or [])
    far_again = Far()
    far_again.put_many(kept)
    async with stage(far=far_again) as restarted:
        await restarted.service.embed(["a", "b", "c", "d"], role="query")
        assert restarted.encoder.texts == ["query: d"]
        assert restarted.heard.lookups == [(0, 3, 0, 1)]
        await restarted.service.embed(["a", "d"], role="query")
        assert restarted.heard.lookups[-1] == (2, 0, 0, 0)


async def test_bulk_work_goes_to_the_durable_tier_alone() -> None:
    far = Far()
    async with stage(far=far) as on:
        await on.service.embed_each(["a"], role="document")
        near, durable = on.tiers.stats()
        assert (near.entries, durable.entries) == (0, 1)
        await on.service.embed_each(["a"], role="document")
        assert len(on.encoder.texts) == 1


async def test_a_durable_tier_that_hangs_is_left_behind() -> None:
    far = Far()
    far.go.clear()
    async with stage(far=far) as on:
        result = await asyncio.wait_for(on.service.embed(["a"], role="query"), 20)
        assert result.tokens
        assert on.encoder.texts == ["query: a"]


async def test_what_happens_is_counted() -> None:
    metrics = Metrics()
    tiers = CacheTiers(MemoryEmbeddingCache(limit_bytes=3000), observer=metrics)
    async with stage(tiers=tiers) as on:
        await on.service.embed([f"글 {n}" for n in range(10)], role="query")
        await on.service.embed(["글 9"], role="query")
    text = metrics.render().decode()
    assert 'ondol_embedding_cache_texts_total{found="nowhere"} 10.0' in text
    assert 'ondol_embedding_cache_texts_total{found="memory"} 1.0' in text
    assert 'ondol_embedding_cache_on{tier="memory"} 1.0' in text
    assert 'ondol_embedding_cache_losses_total{kind="evicted",tier="memory"} 6.0' in text
    tiers.close()


async def test_the_observer_hears_only_what_is_new() -> None:
    heard = Heard()
    tiers = CacheTiers(MemoryEmbeddingCache(limit_bytes=2**20), observer=heard)
    async with stage(tiers=tiers) as on:
        await on.service.embed(["a"], role="query")
        await on.service.embed(["a"], role="query")
    changes = [event for event in heard.events if isinstance(event, CacheTierChanged)]
    assert [(event.entries, event.evicted) for event in changes] == [(1, 0)]
    tiers.close()


@pytest.mark.parametrize(
    ("embeddings", "tiers"), [("memory", ["memory"]), ("sqlite", ["memory", "sqlite"]), ("off", [])]
)
def test_the_settings_name_the_tiers(embeddings: str, tiers: list[str], tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path, "cache": {"embeddings": embeddings}})
    opened = CacheTiers.open(settings)
    assert [stats.tier for stats in (opened.stats() if opened else [])] == tiers
    if opened:
        opened.close()


# --- keys -----------------------------------------------------------------------------------


def spec_of(fingerprint: str, form: str, dimensions: int, tokens: int) -> EncoderSpec:
    return EncoderSpec(
        model="m",
        form=form,
        role="embedder",
        dimensions=dimensions,
        max_tokens=tokens,
        fingerprint=fingerprint,
    )


def test_keys_differ_wherever_anything_differs() -> None:
    words = ("", "a", "ab", "abc", "b", "bc", "c")
    specs = [spec_of(*parts) for parts in product(words, words, (1, 11, 18), (8, 88, 1))]
    texts = ["", "a", "1", "8", "cut", "whole", "whole\x00", "가", "\u1100\u1161"]
    keys = [
        key
        for spec, cut in product(specs, (False, True))
        for key in keys_of(texts, spec=spec, truncate=cut) or []
    ]
    assert len(keys) == 2 * len(specs) * len(texts)
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {KEY_BYTES}


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(5000):
        if condition():
            return
        pause.wait(0.001)
    pytest.fail("it never came to that")

"""The embedding cache in front of an encoder: only texts it has never seen reach the encoder.

Owns the keys, the order in which tiers are asked, when asking the durable one pays, and single
flight: one text is computed once, however many ask for it at a time. Memory is asked on the event
loop, a durable tier on a thread of its own. The cache can only save work: whatever fails is a miss.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self, cast

from ondol.backends.protocols import EncoderSpec
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import NotReady, OndolError
from ondol.core.events import CacheTierChanged, EmbeddingsLookedUp, NullObserver, Observer, Timing
from ondol.core.settings import Settings
from ondol.core.types import Encoded, Pair
from ondol.runtime.embedding_cache.cache_memory import (
    CachedVector,
    CacheStats,
    EmbeddingCache,
    MemoryEmbeddingCache,
    frozen_vector,
)
from ondol.runtime.encoders.batcher import BatchResult
from ondol.runtime.encoders.encoder_lane import EncoderLane

FILE_NAME = "embeddings.db"
LOOKUP_SECONDS = 0.1
"""Longest wait for the durable tier; a look-up that takes longer is a miss."""

MANY = 8
"""From so many texts on, a look-up's cost is shared: they are weighed apart from lone texts."""

FREE_SHARE = 0.02
"""A look-up that costs no more than this share of computing is always made."""

PROBE_EVERY = 16
_HITS_MEMORY = 32
_TIMES_MEMORY = 4  # short: a first look-up that had to connect must soon be forgotten
_FORMAT = "ondol-embedding-1"
_Identity = tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Flight:
    """One request's texts under way; ``found`` is whole when ``done`` is set."""

    texts: int
    urgent: bool
    found: dict[bytes, CachedVector] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Request:
    """One call's distinct texts by key, and what is known of them so far."""

    wanted: dict[bytes, str]
    identity: _Identity
    truncate: bool
    urgent: bool
    timing: Timing
    found: dict[bytes, CachedVector]
    failed: dict[bytes, tuple[OndolError, int]] = field(default_factory=dict)
    durable: int = 0
    joined: int = 0


class _AnotherEncoder(Exception):
    """The lane answered with an encoder that is not the one the keys were made for."""


class CachedLane:
    """A lane (see ``EncoderLane``) that answers texts from ``tiers`` where it can.

    Token ids and pairs pass through, and everything where the encoder has no ``fingerprint``. Errors
    are not kept. Not thread-safe: everything on one event loop.
    """

    def __init__(self, lane: EncoderLane, tiers: CacheTiers, *, clock: Clock | None = None) -> None:
        self._lane = lane
        self._tiers = tiers
        self._clock = clock or SystemClock()
        self._flights: dict[bytes, _Flight] = {}

    @property
    def spec(self) -> EncoderSpec:
        return self._lane.spec

    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult:
        """Answer ``items`` in order as the lane would, computing only what is not held.

        A vector from the cache is the one the encoder gave, bit for bit; its token count too.
        """
        spec = self._known_spec()
        keys = None if spec is None else keys_of(items, spec=spec, truncate=truncate)
        if spec is None or keys is None:
            return await self._lane.submit(items, truncate=truncate, urgent=urgent, timing=timing)
        wanted = dict(zip(keys, cast("Sequence[str]", items), strict=True))
        request = _Request(
            wanted=wanted,
            identity=identity_of(spec),
            truncate=truncate,
            urgent=urgent,
            timing=timing if timing is not None else Timing(),
            found=self._tiers.near.get_many(tuple(wanted)),
        )
        at_once = len(request.found)
        try:
            if at_once < len(wanted):
                await self._complete(request)
        except _AnotherEncoder:
            return await self._lane.submit(items, truncate=truncate, urgent=urgent, timing=timing)
        request.timing.cached_items += at_once + request.durable
        self._tiers.observer.observe(
            EmbeddingsLookedUp(
                model=spec.model,
                memory=at_once,
                durable=request.durable,
                joined=request.joined,
                misses=len(wanted) - at_once - request.durable - request.joined,
            )
        )
        return _result(request, keys, spec)

    def _known_spec(self) -> EncoderSpec | None:
        """Return what would answer now, or ``None`` where its vectors cannot be told apart."""
        try:
            spec = self._lane.spec
        except NotReady:
            return None
        return spec if spec.fingerprint else None

    async def _complete(self, request: _Request) -> None:
        missing = [key for key in request.wanted if key not in request.found]
        while missing:
            theirs = self._others(missing, urgent=request.urgent)
            mine = [key for key in missing if key not in theirs]
            if mine:
                await self._lead(mine, request)
            await self._follow(theirs, request)
            missing = [key for key in theirs if key not in request.found]

    def _others(self, keys: Sequence[bytes], *, urgent: bool) -> dict[bytes, _Flight]:
        """Return whose computation to wait for: never a larger request's, nor bulk work if urgent.

        A flight lands whole, so that joining a large one could cost more than it saves.
        """
        if not self._flights:
            return {}
        flights = ((key, self._flights.get(key)) for key in keys)
        return {
            key: flight
            for key, flight in flights
            if flight and flight.texts <= len(keys) and (flight.urgent or not urgent)
        }

    async def _follow(self, theirs: dict[bytes, _Flight], request: _Request) -> None:
        started = self._clock.monotonic()
        for flight in set(theirs.values()):
            await flight.done.wait()
        landed = {key: f.found[key] for key, f in theirs.items() if key in f.found}
        request.joined += len(landed)
        request.found |= landed
        if theirs:
            request.timing.queue_ms += (self._clock.monotonic() - started) * 1e3

    async def _lead(self, mine: Sequence[bytes], request: _Request) -> None:
        """Find ``mine`` in the durable tier or compute them; those who follow get what is found."""
        flight = _Flight(texts=len(mine), urgent=request.urgent)
        self._flights.update(dict.fromkeys(mine, flight))
        try:
            flight.found |= await self._tiers.far_get(mine, timing=request.timing)
            request.durable += len(flight.found)
            rest = [key for key in mine if key not in flight.found]
            if rest:
                flight.found |= await self._compute(rest, request)
            self._tiers.keep_near(flight.found, urgent=request.urgent)
        finally:
            for key in mine:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.done.set()
        request.found |= flight.found

    async def _compute(self, keys: Sequence[bytes], request: _Request) -> dict[bytes, CachedVector]:
        timing = request.timing
        before = timing.tokenize_ms + timing.inference_ms
        result = await self._lane.submit(
            [request.wanted[key] for key in keys],
            truncate=request.truncate,
            urgent=request.urgent,
            timing=timing,
        )
        if result.spec is not None and identity_of(result.spec) != request.identity:
            raise _AnotherEncoder
        fresh: dict[bytes, CachedVector] = {}
        for key, value, tokens in zip(keys, result.values, result.tokens, strict=True):
            if isinstance(value, OndolError):
                request.failed[key] = value, tokens
            else:
                fresh[key] = frozen_vector(value, tokens)
        seconds = (timing.tokenize_ms + timing.inference_ms - before) / 1e3
        self._tiers.keep_far(fresh, asked=len(keys), seconds=seconds)
        return fresh


def identity_of(spec: EncoderSpec) -> _Identity:
    """Return everything of ``spec`` that a vector depends on."""
    return (spec.fingerprint, spec.form, str(spec.dimensions), str(spec.max_tokens))


def keys_of(
    items: Sequence[str | Pair | Encoded], *, spec: EncoderSpec, truncate: bool
) -> list[bytes] | None:
    """Return the SHA-256 of what each vector depends on; ``None`` where an item has no such key.

    Hashed are the model's fingerprint, its form, dimensions and length limit, whether texts are cut,
    each with its length before it, then the text as the tokenizer gets it, the role's prefix
    included, byte for byte.
    """
    head = _head(identity_of(spec), truncate)
    keys: list[bytes] = []
    for item in items:
        if not isinstance(item, str):
            return None
        digest = head.copy()
        try:
            digest.update(item.encode())
        except UnicodeEncodeError:
            return None
        keys.append(digest.digest())
    return keys


@lru_cache(maxsize=64)
def _head(identity: _Identity, truncate: bool) -> hashlib._Hash:
    """Return the hash of everything but the text; to be copied, not updated."""
    head = hashlib.sha256()
    for part in (_FORMAT, *identity, "cut" if truncate else "whole"):
        data = part.encode()
        head.update(len(data).to_bytes(4, "big") + data)
    return head


def _result(request: _Request, keys: Sequence[bytes], spec: EncoderSpec) -> BatchResult:
    found, failed = request.found, request.failed
    return BatchResult(
        values=[found[key].row if key in found else failed[key][0] for key in keys],
        tokens=[found[key].tokens if key in found else failed[key][1] for key in keys],
        spec=spec,
    )


class CacheTiers:
    """The tiers of one process: ``near`` in memory; ``far`` outlives the process, and may be missing.

    Owns their lifetime and the threads that ask the durable one. Waits for it are bounded, and it is
    only asked while that pays. One set of tiers serves every model.
    """

    def __init__(
        self,
        near: EmbeddingCache,
        far: EmbeddingCache | None = None,
        *,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.near = near
        self.observer = observer or NullObserver()
        self._far = far
        self._clock = clock or SystemClock()
        self._worth = {False: LookupWorth(), True: LookupWorth()}
        self._told: dict[str, CacheStats] = {}
        # Its own threads: a look-up must not queue behind files being read and texts tokenised.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="ondol-cache")

    @classmethod
    def open(cls, settings: Settings, *, observer: Observer | None = None) -> Self | None:
        """Return the tiers that ``cache.embeddings`` names, or ``None`` for ``off``; may block.

        Raises ``SettingsError`` where Redis is asked for and its client is missing or its URL wrong.
        """
        wanted = settings.cache
        if wanted.embeddings == "off":
            return None
        near = MemoryEmbeddingCache(limit_bytes=wanted.memory_mb * 2**20)
        return cls(near, _durable(settings), observer=observer)

    async def far_get(self, keys: Sequence[bytes], *, timing: Timing) -> dict[bytes, CachedVector]:
        """Return what the durable tier holds of ``keys``, if it is there, likely, and worth it."""
        if self._far is None:
            return {}
        likely = self._far.likely(keys)
        worth = self._worth[len(keys) >= MANY]
        if not likely or not worth.asks():
            return {}
        started = self._clock.monotonic()
        asking = asyncio.get_running_loop().run_in_executor(
            self._threads, self._far.get_many, likely
        )
        await asyncio.wait([asking], timeout=LOOKUP_SECONDS)
        found = asking.result() if asking.done() else {}
        seconds = self._clock.monotonic() - started
        worth.asked(len(likely), hits=len(found), seconds=seconds)
        timing.queue_ms += seconds * 1e3
        return found

    def keep_far(self, fresh: Mapping[bytes, CachedVector], *, asked: int, seconds: float) -> None:
        """Hand what was computed to the durable tier; ``asked`` texts took ``seconds``."""
        if self._far is not None:
            self._worth[asked >= MANY].computed(asked, seconds=seconds)
            self._far.put_many(fresh)

    def keep_near(self, found: Mapping[bytes, CachedVector], *, urgent: bool) -> None:
        """Keep ``found`` in memory; bulk work is left to a durable tier, lest it push queries out."""
        if urgent or self._far is None or not self._far.stats().on:
            self.near.put_many(found)
        self._tell()

    def stats(self) -> list[CacheStats]:
        """Return the statistics of each tier, the nearest first."""
        return [tier.stats() for tier in (self.near, self._far) if tier is not None]

    def close(self) -> None:
        """Write what waits and release everything; blocks for a few seconds at most."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for tier in (self._far, self.near):
            if tier is not None:
                tier.close()

    def _tell(self) -> None:
        """Tell the observer what has changed in each tier since it was told last."""
        for now in self.stats():
            before = self._told.get(now.tier)
            if now == before:
                continue
            self._told[now.tier] = now
            before = before or CacheStats(now.tier)
            self.observer.observe(
                CacheTierChanged(
                    tier=now.tier,
                    on=now.on,
                    entries=now.entries,
                    bytes=now.bytes,
                    evicted=now.evicted - before.evicted,
                    dropped=now.dropped - before.dropped,
                    errors=now.errors - before.errors,
                )
            )


def _durable(settings: Settings) -> EmbeddingCache | None:
    wanted = settings.cache
    if wanted.embeddings == "sqlite":
        from ondol.runtime.embedding_cache.cache_sqlite import SqliteEmbeddingCache

        return SqliteEmbeddingCache(settings.home / FILE_NAME, limit_bytes=wanted.disk_mb * 2**20)
    if wanted.embeddings == "redis":
        from ondol.runtime.embedding_cache.cache_redis import RedisEmbeddingCache

        return RedisEmbeddingCache(wanted.redis_url, ttl_seconds=wanted.ttl_seconds)
    return None


class LookupWorth:
    """Whether asking a slow tier pays: what a look-up costs against what its hits save.

    Running averages over the last few texts; asks until it knows better. A tier that does not pay is
    still asked now and then, so that one that has begun to pay is noticed.
    """

    def __init__(self) -> None:
        self._hit_rate = 1.0
        self._lookup: float | None = None
        self._compute: float | None = None
        self._declined = 0

    def asks(self) -> bool:
        """Whether to ask now; counts as declined when not."""
        if self._lookup is None or self._compute is None:
            return True
        gain = max(self._hit_rate, FREE_SHARE) * self._compute
        if self._lookup <= gain or self._declined >= PROBE_EVERY - 1:
            self._declined = 0
            return True
        self._declined += 1
        return False

    def asked(self, texts: int, *, hits: int, seconds: float) -> None:
        """Note a look-up of ``texts`` that found ``hits`` and took ``seconds``."""
        self._hit_rate += min(1.0, texts / _HITS_MEMORY) * (hits / texts - self._hit_rate)
        self._lookup = _blend(self._lookup, seconds / texts, texts)

    def computed(self, texts: int, *, seconds: float) -> None:
        """Note that computing ``texts`` took ``seconds``."""
        self._compute = _blend(self._compute, seconds / texts, texts)


def _blend(old: float | None, new: float, texts: int) -> float:
    return new if old is None else old + min(1.0, texts / _TIMES_MEMORY) * (new - old)

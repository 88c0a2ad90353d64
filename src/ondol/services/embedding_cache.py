"""An encoder's lane behind the embedding cache: only texts it has never seen reach the encoder.

Owns the keys, the order in which tiers are asked, and single flight: one text is computed once,
however many ask for it at a time. Memory is asked on the event loop, a durable tier on a thread and
only while that pays. The cache can only save work: whatever fails in it is a miss.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

from ondol.backends.base import EncoderSpec
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import NotReady, OndolError
from ondol.core.observe import EmbeddingsLookedUp, Timing
from ondol.core.types import Encoded, Pair
from ondol.engine.batcher import BatchResult
from ondol.services.cache_tiers import CacheTiers
from ondol.services.encoder_lane import EncoderLane
from ondol.store.embedding_cache import CachedVector, frozen_vector

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

"""The embedding cache's tiers as the settings name them: memory, and one durable tier or none.

Names the concrete caches and owns their lifetime and the thread that asks the durable one. Waits for
that one are bounded, and it is only asked while that pays. One set of tiers serves every model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from ondol.core.clock import Clock, SystemClock
from ondol.core.observe import CacheTierChanged, NullObserver, Observer, Timing
from ondol.core.settings import Settings
from ondol.services.lookup_worth import LookupWorth
from ondol.store.embedding_cache import CachedVector, CacheStats, EmbeddingCache
from ondol.store.embedding_cache_memory import MemoryEmbeddingCache

FILE_NAME = "embeddings.db"
LOOKUP_SECONDS = 0.1
"""Longest wait for the durable tier; a look-up that takes longer is a miss."""

MANY = 8
"""From so many texts on, a look-up's cost is shared: they are weighed apart from lone texts."""


class CacheTiers:
    """``near`` is in memory; ``far`` is slower, outlives the process, and may be missing."""

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
        from ondol.store.embedding_cache_sqlite import SqliteEmbeddingCache

        return SqliteEmbeddingCache(settings.home / FILE_NAME, limit_bytes=wanted.disk_mb * 2**20)
    if wanted.embeddings == "redis":
        from ondol.store.embedding_cache_redis import RedisEmbeddingCache

        return RedisEmbeddingCache(wanted.redis_url, ttl_seconds=wanted.ttl_seconds)
    return None

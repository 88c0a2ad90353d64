"""The embedding cache in Redis: shared by several servers, each entry gone after ``ttl_seconds``.

A Redis that is slow, full or gone costs at most one time-out every ``PAUSE_SECONDS``: after a
failure nothing is asked or written until then. Needs the extra ``redis``. What happens when it is
full is Redis's business (``maxmemory``, ``maxmemory-policy allkeys-lru``).
Source: https://redis.io/docs/latest/commands/mget/
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import cast
from urllib.parse import urlsplit

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import SettingsError
from ondol.core.extras import install_command
from ondol.runtime.embedding_cache.cache_memory import (
    CachedVector,
    CacheStats,
    WriteBehind,
    pack,
    unpack_all,
)

try:
    from redis import Redis, RedisError
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise SettingsError(
        "cache.embeddings = 'redis' needs the Redis client, which is not installed",
        hint=f"{install_command('redis')}, or set cache.embeddings to memory or sqlite",
        param="cache.embeddings",
    ) from error

_log = logging.getLogger("ondol.embedding_cache")

PREFIX = b"ondol:embedding:1:"
PAUSE_SECONDS = 5.0
TIMEOUT_SECONDS = 0.05
WAITING_BYTES = 16 * 2**20
_KEYS_AT_ONCE = 256


class RedisEmbeddingCache:
    """Entries in the Redis at ``url``; opening never waits for it and raises for a bad URL only."""

    def __init__(
        self,
        url: str,
        *,
        ttl_seconds: float,
        clock: Clock | None = None,
        gather_seconds: float = 0.25,
    ) -> None:
        self._place = _place(url)
        self._ttl_ms = max(1, round(ttl_seconds * 1000))
        self._clock = clock or SystemClock()
        self._guard = threading.Lock()
        self._paused_until = 0.0
        self._reason = ""
        self._hits = self._misses = self._errors = self._skipped = 0
        try:
            # Unbounded retries and waits are the client's defaults; a cache must have neither.
            self._client = Redis.from_url(
                url,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
                decode_responses=False,
            )
        except ValueError as error:
            raise SettingsError(
                f"cache.redis_url is not the URL of a Redis: {error}",
                hint="for example redis://127.0.0.1:6379/0",
                param="cache.redis_url",
            ) from None
        self._behind = WriteBehind(
            self._write,
            name="embedding-cache",
            limit_bytes=WAITING_BYTES,
            gather_seconds=gather_seconds,
        )

    def likely(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Return ``keys``, or none while Redis is given a rest."""
        return keys if self._may_try(probe=False) else ()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """Return what is held of ``keys``, written or about to be."""
        found = self._behind.waiting(keys)
        asked = [key for key in keys if key not in found]
        broken = 0
        if asked and self._may_try(probe=True):
            try:
                rows = self._fetch(asked)
            except (RedisError, OSError) as error:
                self._failed(error)
            else:
                self._worked()
                sound, broken = unpack_all(rows)
                found |= sound
        with self._guard:
            self._errors += broken
            self._hits += len(found)
            self._misses += len(keys) - len(found)
        return found

    def put_many(self, items: Mapping[bytes, CachedVector]) -> None:
        """Hand ``items`` to the writer; returns at once."""
        self._behind.add(items)

    def stats(self) -> CacheStats:
        """Return whether Redis is in use, and what was asked so far; its size is not asked for."""
        with self._guard:
            return CacheStats(
                tier="redis",
                on=not self._reason,
                reason=self._reason,
                hits=self._hits,
                misses=self._misses,
                dropped=self._behind.dropped + self._skipped,
                errors=self._errors,
            )

    def close(self) -> None:
        """Write what waits, then close the connections. Later calls do nothing."""
        self._behind.close()
        self._client.close()

    def _fetch(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            block = keys[first : first + _KEYS_AT_ONCE]
            answer = cast("list[bytes | None]", self._client.mget([PREFIX + key for key in block]))
            rows += [(k, data) for k, data in zip(block, answer, strict=True) if data is not None]
        return rows

    def _write(self, items: Mapping[bytes, CachedVector]) -> None:
        rows = list(items.items())
        for first in range(0, len(rows), _KEYS_AT_ONCE):
            block = rows[first : first + _KEYS_AT_ONCE]
            if not self._may_try(probe=True):
                with self._guard:
                    self._skipped += len(block)
                continue
            pipeline = self._client.pipeline(transaction=False)
            for key, vector in block:
                pipeline.set(PREFIX + key, pack(key, vector), px=self._ttl_ms)
            try:
                pipeline.execute()
            except (RedisError, OSError) as error:
                self._failed(error)
            else:
                self._worked()

    def _may_try(self, *, probe: bool) -> bool:
        """Whether Redis is to be used now; after a pause one caller tries, the others wait on."""
        if not self._reason:
            return True
        now = self._clock.monotonic()
        with self._guard:
            if now < self._paused_until:
                return False
            if probe:
                self._paused_until = now + PAUSE_SECONDS
        return True

    def _failed(self, error: Exception) -> None:
        with self._guard:
            self._errors += 1
            first, self._reason = not self._reason, str(error) or type(error).__name__
            self._paused_until = self._clock.monotonic() + PAUSE_SECONDS
        if first:
            _log.warning(
                "Redis at %s does not answer (%s); embeddings are not shared until it does",
                self._place,
                error,
            )

    def _worked(self) -> None:
        if self._reason:
            with self._guard:
                self._reason = ""
            _log.info("Redis at %s answers again", self._place)


def _place(url: str) -> str:
    """Return the URL without user and password, for the log."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

"""How many requests are inside, and whether more may come in.

The one counter behind the connection limit, the drain at shutdown and a reload. Event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ondol.core.errors import NotReady, Overloaded


class Gate:
    """Admits up to ``limit`` requests at once; none while draining."""

    def __init__(self, *, limit: int, drain_seconds: float) -> None:
        self._limit = limit
        self._drain_seconds = drain_seconds
        self._inside = 0
        self._draining = False
        self._left = asyncio.Event()

    @property
    def inside(self) -> int:
        return self._inside

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """Admit nobody from now on."""
        self._draining = True

    @contextmanager
    def pass_through(self) -> Iterator[None]:
        """Hold a place for a block; raises ``NotReady`` or ``Overloaded`` instead of waiting."""
        if self._draining:
            raise NotReady(
                "the server is shutting down and takes no new requests",
                retry_after=self._drain_seconds,
                hint="send again after Retry-After seconds",
                code="draining",
            )
        if self._inside >= self._limit:
            raise Overloaded(
                f"{self._inside} requests are open, the limit is {self._limit}",
                retry_after=1,
                hint="send again after Retry-After seconds, or raise server.max_connections",
                code="too_many_connections",
            )
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._left.set()

    async def wait_until(self, most: int, *, seconds: float) -> bool:
        """Wait until at most ``most`` requests are inside; false when ``seconds`` ran out first."""
        try:
            async with asyncio.timeout(seconds):
                while self._inside > most:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True

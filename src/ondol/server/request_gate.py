"""How many requests are inside, and whether more may come in.

The one counter behind the connection limit, the drain at shutdown and a reload. Event loop only.

How much one request may bring: bytes, items, characters.

``BodyLimit`` counts bytes as they arrive, with or without ``Content-Length``, and bounds what all
requests together hold. ``RequestLimits`` checks what the parsed body contains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ondol.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    TextTooLong,
    TooManyItems,
)
from ondol.core.settings.sections import ServerSettings


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


IDLE_SECONDS = 30.0
SHARE = 4
"""All requests together may hold this many times the largest body."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a body may contain; each breach is an error that names field, figure and rule."""

    items: int
    chars: int

    @classmethod
    def of(cls, settings: ServerSettings) -> RequestLimits:
        return cls(items=settings.max_items, chars=settings.max_text_chars)

    def texts(self, texts: Sequence[str], *, param: str, empty: bool = True) -> None:
        """Check a list of texts: how many, how long each, and whether an empty one may be."""
        self.count(len(texts), param=param)
        for index, text in enumerate(texts):
            self.text(text, param=f"{param}[{index}]", empty=empty)

    def count(self, count: int, *, param: str) -> None:
        """Raise ``InvalidInput`` for none and ``TooManyItems`` above ``items``."""
        if count == 0:
            raise InvalidInput(
                f"{param} is empty", hint="send at least one item", code="empty_input", param=param
            )
        if count > self.items:
            raise TooManyItems(
                f"{param} holds {count} items, the limit is {self.items}",
                hint="split the request, or raise server.max_items",
                param=param,
            )

    def text(self, text: str, *, param: str, empty: bool = False) -> None:
        """Raise ``InvalidInput`` for a blank text and ``TextTooLong`` above ``chars``."""
        if not empty and not text.strip():
            raise InvalidInput(
                f"{param} is empty", hint="send some text", code="empty_input", param=param
            )
        if len(text) > self.chars:
            raise TextTooLong(
                f"{param} has {len(text)} characters, the limit is {self.chars}",
                hint="split the text, or raise server.max_text_chars",
                param=param,
            )


class BodyLimit:
    """ASGI middleware: stops a body that is too large, too slow, or one too many."""

    def __init__(self, app: ASGIApp, *, most: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self._app = app
        self._most = most
        self._idle_seconds = idle_seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        body = _Body(self, receive, most=self._most, idle_seconds=self._idle_seconds)
        try:
            if declared.isdigit() and int(declared) > self._most:
                await body.refuse(f"{int(declared)} bytes")
            await self._app(scope, body.receive, send)
        finally:
            self._held -= body.held

    def hold(self, count: int) -> None:
        """Count ``count`` more bytes as held; raises ``Overloaded`` when all together are too many."""
        if self._held + count > SHARE * self._most:
            raise Overloaded(
                f"open requests already hold {self._held} bytes of bodies",
                retry_after=1,
                hint="send again after Retry-After seconds, or send smaller bodies",
                code="bodies_overloaded",
            )
        self._held += count


class _Body:
    """The ``receive`` of one request, with its bytes counted."""

    def __init__(
        self, limit: BodyLimit, receive: Receive, *, most: int, idle_seconds: float
    ) -> None:
        self._limit = limit
        self._receive = receive
        self._most = most
        self._idle_seconds = idle_seconds
        self._complete = False
        self.held = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        message = await self._next()
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            if self.held + count > self._most:
                await self.refuse(f"more than {self._most} bytes")
            self._limit.hold(count)
            self.held += count
        return message

    async def refuse(self, size: str) -> None:
        """Read on and forget, so that a client in mid-send can read the answer; then raise."""
        forgotten = 0
        while not self._complete and forgotten <= self._most:
            forgotten += len((await self._next()).get("body", b""))
        raise PayloadTooLarge(
            f"the body has {size}, the limit is {self._most}",
            hint="send less at once, or raise server.max_body_bytes",
            param="body",
        )

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(self._idle_seconds):
                message = await self._receive()
        except TimeoutError:
            raise DeadlineExceeded(
                f"no byte of the body came for {self._idle_seconds:g} s",
                hint="send the body without pauses",
                code="body_timeout",
                param="body",
            ) from None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._complete = True
        return message

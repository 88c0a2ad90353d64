"""Server-sent events: one task per stream, which ends when the client leaves.

A ``SseRelay`` runs an asynchronous generator inside a task of its own, so that its time-outs and its
clean-up happen in one task, and cancelling that task is all it takes to free what it holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Generic, TypeVar

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ondol.core.errors import Cancelled

T = TypeVar("T")

BUFFERED = 64
PING_SECONDS = 15.0
PING = b": ping\n\n"
SILENCE = object()
"""In place of an item: nothing has come for a while."""
_END = object()


def sse(data: Any, *, event: str | None = None) -> bytes:
    """Return one server-sent event with ``data`` as one line of JSON."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + to_json(data, inf_nan_mode="null") + b"\n\n"


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; cancel it and raise ``Cancelled`` when the client leaves first.

    Only for requests whose body has been read: the next message can only be the disconnect. The
    work runs in the caller's own task: one for every request would cost more than it is worth.
    """
    task = asyncio.current_task()
    watch = asyncio.create_task(_disconnect(receive))
    left = False

    def leave(ended: asyncio.Task[None]) -> None:
        nonlocal left
        if task is not None and not ended.cancelled():
            ended.exception()
            left = True
            task.cancel()

    watch.add_done_callback(leave)
    try:
        await asyncio.sleep(0)  # the watch begins, and work that never waits still lets others run
        return await work
    except asyncio.CancelledError:
        if left and task is not None and not task.uncancel():
            raise Cancelled("the client left before the answer was ready") from None
        raise
    finally:
        watch.remove_done_callback(leave)
        watch.cancel()
        work.close()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class SseRelay(Generic[T]):
    """Items of a generator, produced in a task of its own with a bounded lead."""

    def __init__(self, source: AsyncGenerator[T]) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._room = asyncio.Semaphore(BUFFERED)
        self._task = asyncio.create_task(self._produce(source))
        self._peeked: list[T] = []
        self._passed = 0

    @classmethod
    async def started(cls, source: AsyncGenerator[T]) -> SseRelay[T]:
        """Return a relay whose first item is there; raises what the generator raised before it."""
        relay = cls(source)
        try:
            relay._peeked = [await anext(relay)]
        except StopAsyncIteration:
            await relay.close()
        except BaseException:
            await relay.close()
            raise
        return relay

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while (item := await self.next_or_silence()) is SILENCE:
            pass
        return item  # type: ignore[no-any-return]

    async def next_or_silence(self) -> Any:
        """Return the next item, or ``SILENCE`` where ``heard`` found none for its time."""
        if self._peeked:
            return self._peeked.pop()
        item = await self._queue.get()
        if item is SILENCE:
            return item
        if item is _END:
            self._queue.put_nowait(_END)
            await self._task
            raise StopAsyncIteration
        self._passed += 1
        self._room.release()
        return item

    @contextmanager
    def heard(self, seconds: float) -> Iterator[None]:
        """Within the block, put ``SILENCE`` among the items after ``seconds`` to twice as long
        without one. One timer a stream: a time-out around each item would cost more than it."""
        loop = asyncio.get_running_loop()
        before = self._passed
        timer = loop.call_later(seconds, lambda: listen())

        def listen() -> None:
            nonlocal before, timer
            if self._passed == before and self._queue.empty():
                self._queue.put_nowait(SILENCE)
            before = self._passed
            timer = loop.call_later(seconds, listen)

        try:
            yield
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Stop the generator where it stands; returns once its clean-up is done."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _produce(self, source: AsyncGenerator[T]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await self._room.acquire()
                    self._queue.put_nowait(item)
        finally:
            self._queue.put_nowait(_END)


class EventStream(Response):
    """A ``text/event-stream`` response over a relay.

    ``render`` turns an item into bytes, ``failed`` an error into the stream's last bytes;
    ``opening`` goes first, ``last`` after an undisturbed end. A client that leaves cancels the relay's generator at once.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        relay: SseRelay[T],
        *,
        render: Callable[[T], bytes],
        failed: Callable[[BaseException], bytes],
        opening: bytes = b"",
        last: bytes = b"",
        headers: Mapping[str, str] | None = None,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        super().__init__(headers={"x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._relay = relay
        self._render_item = render
        self._failed = failed
        self._opening = opening
        self._last = last
        self._ping_seconds = ping_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_disconnected(receive, self._stream(send))
        except Cancelled:
            return
        finally:
            await self._relay.close()

    async def _stream(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if self._opening:
            await send({"type": "http.response.body", "body": self._opening, "more_body": True})
        async for chunk in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            with self._relay.heard(self._ping_seconds):
                while True:
                    item = await self._relay.next_or_silence()
                    yield PING if item is SILENCE else self._render_item(item)
        except StopAsyncIteration:
            yield self._last
        except Exception as error:
            yield self._failed(error)

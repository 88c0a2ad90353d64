"""One HTTP server that speaks JSON and server-sent events, over the standard library.

Owns connecting, cancelling in mid-wait and reading event streams; a cancel closes the socket, so
the other side stops working. Raises its own three exceptions, which each backend turns into the
error that fits. Follows no redirect and no proxy variable. Knows no chat.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ondol.core.cancel import CancelToken
from ondol.core.errors import SettingsError

CONNECT_SECONDS = 10.0
_MAX_REPLY_BYTES = 16 * 1024 * 1024
_MAX_LINE_BYTES = 4 * 1024 * 1024


class Unreachable(Exception):
    """Nobody answered at the address."""


class BrokenOff(Exception):
    """The other side closed, stalled or sent nonsense in mid-answer."""


class BadStatus(Exception):
    """An HTTP status other than 200."""

    def __init__(self, reply: HttpReply) -> None:
        super().__init__(f"HTTP {reply.status}")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole answer: ``payload`` is its JSON, or its text under ``"error"`` where it is not."""

    status: int
    headers: Mapping[str, str]
    payload: Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A base URL (``http(s)://host[:port][/prefix]``) and the bearer key for it."""

    url: str
    key: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                f"{self.url!r} is not an http(s) base URL",
                hint="give it as http://host:port/v1",
                param="url",
            )

    def call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, timeout: float
    ) -> HttpReply:
        """Send one request and return the whole answer, whatever its status.

        Raises ``Unreachable`` or ``BrokenOff``; ``timeout`` seconds bound each wait.
        """
        line = _Line(self, timeout=min(timeout, CONNECT_SECONDS))
        try:
            line.sock.settimeout(timeout)
            return _reply(line.request(method, path, body))
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOff(_reason(error)) from error
        finally:
            line.close()

    def stream(
        self,
        path: str,
        *,
        body: Mapping[str, Any],
        cancel: CancelToken,
        on_bytes: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """POST ``body`` and yield each event's JSON until ``[DONE]`` or the end of the answer.

        Ends quietly when ``cancel`` is thrown. ``on_bytes`` runs at each line received;
        ``timeout`` bounds the wait for each. Raises ``Unreachable``, ``BrokenOff``, ``BadStatus``.
        """
        if cancel.cancelled:
            return
        line = _Line(self, timeout=CONNECT_SECONDS)
        try:
            cancel.on_cancel(line.hang_up)
            line.sock.settimeout(timeout)
            response = line.request("POST", path, body)
            if response.status != 200:
                raise BadStatus(_reply(response))
            yield from _events(response, on_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not cancel.cancelled:
                raise BrokenOff(_reason(error)) from error
        finally:
            line.close()


class _Line:
    """One connection that any thread may hang up while its own thread waits on it."""

    def __init__(self, endpoint: Endpoint, *, timeout: float) -> None:
        parts = urlsplit(endpoint.url)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "*/*"}
        if endpoint.key:
            self._headers["Authorization"] = f"Bearer {endpoint.key}"
        host, port = parts.hostname or "", parts.port
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            self._connection.connect()
        except OSError as error:
            self._connection.close()
            raise Unreachable(_reason(error)) from error
        sock: socket.socket | None = self._connection.sock
        if sock is None:
            raise Unreachable("the connection closed at once")
        self.sock: socket.socket = sock
        self._response: http.client.HTTPResponse | None = None
        self._lock = threading.Lock()
        self._closed = False

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(method, self._prefix + path, data, self._headers)
        self._response = self._connection.getresponse()
        return self._response

    def hang_up(self) -> None:
        """Wake whoever waits on this line; it reads the end of the stream."""
        with self._lock:
            if not self._closed:
                try:
                    # Not SSLSocket.shutdown: that tears down state the reader is using.
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
                except OSError:
                    return  # the other side was quicker

    def close(self) -> None:
        """Close for good, which is what tells a server in mid-answer that nobody listens."""
        with self._lock:
            self._closed = True
            if self._response is not None:
                self._response.close()
            self._connection.close()
            self.sock.close()


def _events(
    response: http.client.HTTPResponse, on_bytes: Callable[[], None] | None
) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of an event stream (one ``data:`` line each, as all servers send)."""
    while raw := response.readline(_MAX_LINE_BYTES):
        if on_bytes is not None:
            on_bytes()
        line = raw.strip()
        if not line.startswith(b"data:"):
            if line.startswith(b"{"):
                yield _object(line)
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        yield _object(data)


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"an event is not a JSON object but {type(value).__name__}")
    return value


def _reply(response: http.client.HTTPResponse) -> HttpReply:
    data = response.read(_MAX_REPLY_BYTES)
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        payload = json.loads(data)
    except ValueError:
        payload = {"error": data.decode("utf-8", "replace").strip()[:500]}
    return HttpReply(response.status, headers, payload)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__

"""The HTTP/1.1 protocol under the app: what uvicorn answers before an app is asked.

Bytes that are no HTTP get the envelope too; a connection that says nothing is closed after a while,
and one too many at once.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from pydantic_core import to_json
from uvicorn.protocols.http.h11_impl import H11Protocol

from ondol.server.server_errors import ErrorResponse

SILENT_SECONDS = 30.0
HEADER_BYTES = 32 * 1024

_NOT_HTTP = ErrorResponse(
    status=400,
    message="the request is not valid HTTP/1.1, or its headers are too large",
    type="invalid_request_error",
    code="invalid_http",
    hint=f"send plain HTTP/1.1 with less than {HEADER_BYTES // 1024} KiB of headers",
)


class OndolProtocol(H11Protocol):
    """One connection. ``most_connections`` bounds how many there may be."""

    most_connections: ClassVar[int] = 1024

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.most_connections:
            transport.abort()
            return
        super().connection_made(transport)
        self._silence = self.loop.call_later(SILENT_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self._silence.cancel()
            super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that could not be read as HTTP with the envelope, and close."""
        body = to_json(_NOT_HTTP.envelope())
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=_NOT_HTTP.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()


def bounded_protocol(*, most_connections: int) -> type[OndolProtocol]:
    """Return the protocol class with its bound."""
    return type("BoundedProtocol", (OndolProtocol,), {"most_connections": most_connections})

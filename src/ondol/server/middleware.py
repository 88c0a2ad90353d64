"""What every request goes through, whatever its route: identity, timing, errors, admission.

``RequestContext`` is outermost: it names the request, writes the timing headers and turns any
error of an inner layer into the envelope. ``AdmissionMiddleware`` holds the request's place in the gate.
"""

from __future__ import annotations

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ondol.core.events import Timing
from ondol.server.auth import HEALTH_PATHS
from ondol.server.request_gate import Gate
from ondol.server.server_errors import error_response
from ondol.telemetry.logs import request_id

_log = logging.getLogger("ondol.server")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECURITY_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class RequestContext:
    """ASGI middleware: ``x-ondol-*`` headers on every response, one envelope for every error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        timing = Timing(request_id=_identify(Headers(scope=scope)))
        scope.setdefault("state", {})["timing"] = timing
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _write_headers(MutableHeaders(scope=message), timing)
            await send(message)

        token = request_id.set(timing.request_id)
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if status:
                raise
            await error_response(error)(scope, receive, send_with_headers)
        finally:
            level = logging.WARNING if status >= 500 else logging.DEBUG
            _log.log(level, "%s %s %d", scope["method"], scope["path"], status)
            request_id.reset(token)


class AdmissionMiddleware:
    """ASGI middleware: a place in the gate for every request but health checks."""

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        with self._gate.pass_through():
            await self._app(scope, receive, send)


def _identify(headers: Headers) -> str:
    """Return the caller's request id where it is short and plain, else a new one."""
    given = headers.get("x-ondol-request-id") or headers.get("x-request-id") or ""
    return given if _SANE_ID.fullmatch(given) else f"req-{secrets.token_hex(8)}"


def _write_headers(headers: MutableHeaders, timing: Timing) -> None:
    headers["x-ondol-request-id"] = timing.request_id
    headers["x-ondol-queue-ms"] = f"{timing.queue_ms:.2f}"
    headers["x-ondol-tokenize-ms"] = f"{timing.tokenize_ms:.2f}"
    inference = timing.inference_ms or timing.prefill_ms + timing.decode_ms
    headers["x-ondol-inference-ms"] = f"{inference:.2f}"
    if timing.cached_items:
        headers["x-ondol-cached-items"] = str(timing.cached_items)
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)

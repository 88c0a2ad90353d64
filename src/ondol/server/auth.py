"""Who may talk to the server: bearer keys, or, without keys, only this machine.

Keys are compared in constant time. Without keys the server stays on loopback, and a browser page
from elsewhere is turned away by its ``Host`` (DNS rebinding) and ``Origin`` (cross-site posts).

What a request may claim of the generator: its lane, its deadline, and whose prompt cache it is.

Read from headers (``x-ondol-lane``, ``x-ondol-deadline-ms``) and from what its API key maps to; a key
with a lane of its own cannot choose another.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ondol.core.errors import InvalidInput, SettingsError, Unauthorized
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import LANES
from ondol.core.settings.sections import ServerSettings

_LEAST_MS, _MOST_MS = 1.0, 24 * 3600 * 1e3


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What an API key maps to: an opaque name, a lane of its own (empty: the caller's choice)."""

    tenant: str
    lane: str = ""
    share: float = 1.0


def key_lanes(entries: Sequence[str], *, keys: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return lane and share by key from ``server.key_lanes`` (``key=lane`` or ``key=lane:share``).

    Raises ``SettingsError`` for an unknown key or lane, and for a share outside (0, 1].
    """
    found: dict[str, tuple[str, float]] = {}
    for entry in entries:
        key, _, rest = entry.rpartition("=")
        lane, _, share_text = rest.partition(":")
        share = _number(share_text or "1")
        if key not in keys or lane not in LANES or share is None or not 0 < share <= 1:
            raise SettingsError(
                f"server.key_lanes holds an entry for the lane {lane!r} with the share "
                f"{share_text or '1'!r} that is not KEY=LANE:SHARE of a key in server.api_keys",
                hint=f"the lanes are {', '.join(LANES)}; a share is above 0 and at most 1",
                param="server.key_lanes",
            )
        found[key] = (lane, share)
    return found


def terms_of(request: Request, *, lane: str = "chat") -> RequestTerms:
    """Return the request's terms; raises ``InvalidInput`` for headers that are off.

    ``lane`` is what the request goes by where neither its key nor its header says.
    """
    key: KeyTerms = request.scope.get("state", {}).get("key_terms", KeyTerms(""))
    asked = request.headers.get("x-ondol-lane", "")
    if asked and asked not in LANES:
        raise InvalidInput(
            f"there is no lane {asked[:40]!r}",
            hint=f"the lanes are {', '.join(LANES)}",
            code="unknown_lane",
            param="x-ondol-lane",
        )
    return RequestTerms(
        lane=key.lane or asked or lane,
        deadline_ms=_deadline(request.headers),
        tenant=key.tenant,
        share=key.share,
    )


def _deadline(headers: Mapping[str, str]) -> float | None:
    text = headers.get("x-ondol-deadline-ms")
    if text is None:
        return None
    value = _number(text)
    if value is None or not _LEAST_MS <= value <= _MOST_MS:
        raise InvalidInput(
            f"x-ondol-deadline-ms is {text[:40]!r}, it is a number of milliseconds from 1 to a day",
            hint="send for example x-ondol-deadline-ms: 2000",
            param="x-ondol-deadline-ms",
        )
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


HEALTH_PATHS = frozenset({"/health/live", "/health/ready"})
OPEN_PATHS = HEALTH_PATHS | {"/"}
"""Reachable without a key: health, and the web page, which is a public file that asks for the key."""


def check_exposure(settings: ServerSettings) -> None:
    """Raise ``SettingsError`` for a bind address that others can reach without API keys."""
    blank = [key for key in settings.api_keys if not key or key != key.strip()]
    if blank:
        raise SettingsError(
            "server.api_keys holds an empty key or one with blanks around it",
            hint="give each key as plain text without spaces",
            param="server.api_keys",
        )
    if not settings.api_keys and not is_loopback(settings.host):
        raise SettingsError(
            f"server.host = {settings.host!r} can be reached by others, and server.api_keys is empty",
            hint="set ONDOL_SERVER_API_KEYS, or bind to 127.0.0.1",
            param="server.api_keys",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class KeyGuard:
    """ASGI middleware: lets through requests with a known ``Authorization: Bearer`` key."""

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[str], lanes: Mapping[str, tuple[str, float]]
    ) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]
        none = ("", 1.0)
        self._terms = [
            KeyTerms(digest.hex()[:16], *lanes.get(key, none))
            for key, digest in zip(keys, self._digests, strict=True)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        given = Headers(scope=scope).get("authorization")
        if given is None:
            raise Unauthorized(
                "no API key came with the request",
                hint="send the header 'Authorization: Bearer <key>'",
                code="missing_api_key",
            )
        kind, _, key = given.partition(" ")
        digest = _digest(key.strip().encode("latin-1", "replace"))
        known = [hmac.compare_digest(digest, other) for other in self._digests]
        if kind.lower() != "bearer" or not any(known):
            raise Unauthorized(
                "the API key is not one of this server's",
                hint="check the key, or ask who runs the server",
                code="invalid_api_key",
            )
        scope.setdefault("state", {})["key_terms"] = self._terms[known.index(True)]


class LoopbackGuard:
    """ASGI middleware for a server without keys: only pages and programs of this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if not is_loopback(_hostname(f"//{host}")):
                raise InvalidInput(
                    f"Host {host!r} is not this machine's loopback name",
                    hint="use http://127.0.0.1 or localhost, or set API keys",
                    code="host_not_allowed",
                    param="host",
                )
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != host:
                raise InvalidInput(
                    f"a page of {origin!r} may not call this server",
                    hint="call it from a program, or set API keys and a proxy of your own",
                    code="origin_not_allowed",
                    param="origin",
                )
        await self._app(scope, receive, send)


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _digest(key: bytes) -> bytes:
    """Hash first, so that comparing takes the same time for keys of any length."""
    return hashlib.sha256(key).digest()

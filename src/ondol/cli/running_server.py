"""The server that the settings name, asked over HTTP: what a command does to models in service.

Turns the server's error envelope into an error of ours. Never goes through a proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ondol.core.errors import ModelError, NotFound, NotReady, Unauthorized

if TYPE_CHECKING:
    import httpx

    from ondol.core.settings.sections import ServerSettings

RELOAD_SECONDS = 300.0
LOOK_SECONDS = 2.0


def post(settings: ServerSettings, path: str, body: dict[str, Any]) -> Any:
    """Send ``body`` and return the answer; raises ``NotReady`` where no server answers."""
    import httpx

    url = f"{_base(settings)}{path}"
    try:
        response = httpx.post(
            url, json=body, headers=_headers(settings), timeout=RELOAD_SECONDS, trust_env=False
        )
    except httpx.HTTPError as error:
        raise NotReady(
            f"no server answers at {url}: {error}",
            retry_after=5,
            hint="start it with `ondol serve`, or name it with --set server.port=…",
        ) from None
    _raise_for(response)
    return response.json()


def look(settings: ServerSettings, path: str) -> Any | None:
    """Return what the server says, or ``None`` where there is no server that answers as ours do."""
    import httpx

    try:
        response = httpx.get(
            f"{_base(settings)}{path}",
            headers=_headers(settings),
            timeout=LOOK_SECONDS,
            trust_env=False,
        )
        return response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _base(settings: ServerSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _headers(settings: ServerSettings) -> dict[str, str]:
    return {"authorization": f"Bearer {settings.api_keys[0]}"} if settings.api_keys else {}


def _raise_for(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        said = response.json()["error"]
        message, hint = str(said["message"]), str(said.get("hint") or "")
    except (ValueError, KeyError, TypeError):
        message, hint = f"the server answered {response.status_code}", "see its log"
    if response.status_code in (401, 403):
        raise Unauthorized(message, hint=hint)
    if response.status_code == 404:
        raise NotFound(message, hint=hint)
    if response.status_code == 503:
        raise NotReady(message, hint=hint, retry_after=5)
    raise ModelError(message, hint=hint)

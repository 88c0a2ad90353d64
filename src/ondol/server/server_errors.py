"""One envelope for everything that goes wrong over HTTP.

``{"error": {"message", "type", "code", "param", "hint"}}``, in bodies and in event streams alike.
Status and type come from ``core.errors.OUTCOMES``; an error that is not ours leaves as a plain 500
that names the request id and nothing of the inside.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ondol.core.errors import (
    GeneratorDied,
    InvalidInput,
    OndolError,
    Refused,
    Unauthorized,
    outcome_of,
)
from ondol.telemetry.logs import request_id

_log = logging.getLogger("ondol.server")

_SHOWN = 80
RESTART_SECONDS = 5
"""When to ask again after the generator died: it restarts by itself."""
_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}
_HTTP_HINTS = {
    404: "the endpoints are listed under /openapi.json",
    405: "use a method of the Allow header",
}


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """One failure as it leaves: status, envelope fields, extra headers."""

    status: int
    message: str
    type: str
    code: str
    param: str | None = None
    hint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def envelope(self) -> dict[str, Any]:
        """Return the JSON body."""
        error = {
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "param": self.param,
            "hint": self.hint,
        }
        return {"error": error}


def problem_of(error: BaseException) -> ErrorResponse:
    """Return how ``error`` leaves over HTTP; unknown kinds are logged and told nothing of."""
    if isinstance(error, OndolError):
        return _of_ondol(error)
    if isinstance(error, RequestValidationError):
        return _of_ondol(invalid_input(error.errors()))
    if isinstance(error, HTTPException):
        return _of_http(error)
    _log.error("unhandled %s", type(error).__name__, exc_info=error)
    return ErrorResponse(
        status=500,
        message=f"an unexpected error stopped this request ({request_id.get() or 'no request id'})",
        type="server_error",
        code="internal",
        hint="try again; if it stays, look for the request id in the server's log",
    )


def error_response(error: BaseException) -> Response:
    """Return the response for ``error``, with ``Retry-After`` where it is a refusal."""
    problem = problem_of(error)
    return json_response(problem.envelope(), status=problem.status, headers=problem.headers)


def json_response(
    content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``content`` as JSON; what JSON cannot hold (NaN, infinity) leaves as null."""
    return Response(
        to_json(content, inf_nan_mode="null"),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def invalid_input(errors: Sequence[Mapping[str, Any]]) -> InvalidInput:
    """Return the first of pydantic's ``errors`` in our words."""
    first = errors[0]
    param = _path(first["loc"])
    if first["type"] == "missing":
        if not param:
            return InvalidInput(
                "the body is empty", hint="send a JSON object", code="missing_body", param="body"
            )
        return InvalidInput(
            f"{param} is missing", hint=f"send {param}", code="missing_field", param=param
        )
    if first["type"] == "extra_forbidden":
        return InvalidInput(
            f"{param} is not a field of this request",
            hint="remove it; the fields are listed under /openapi.json",
            code="unknown_field",
            param=param,
        )
    name = param or "the body"
    return InvalidInput(
        f"{name} is {_shown(first.get('input'))}: {first['msg']}",
        hint=f"correct {name} and send again",
        param=param or "body",
    )


def _of_ondol(error: OndolError) -> ErrorResponse:
    outcome = outcome_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, Refused):
        headers["retry-after"] = str(retry_after(error))
    if isinstance(error, GeneratorDied):
        headers["retry-after"] = str(RESTART_SECONDS)
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return ErrorResponse(
        status=outcome.status,
        message=error.message,
        type=outcome.type,
        code=error.code,
        param=error.param,
        hint=error.hint,
        headers=headers,
    )


def retry_after(error: Refused) -> int:
    """Return whole seconds, rounded up and at least 1: HTTP knows no fractions here."""
    if not math.isfinite(error.retry_after):
        return 60
    return max(1, math.ceil(error.retry_after))


def _of_http(error: HTTPException) -> ErrorResponse:
    server_side = error.status_code >= 500
    kind = "server_error" if server_side else "invalid_request_error"
    return ErrorResponse(
        status=error.status_code,
        message=str(error.detail),
        type="not_found_error" if error.status_code == 404 else kind,
        code=_HTTP_CODES.get(error.status_code, "bad_request"),
        hint=_HTTP_HINTS.get(error.status_code, "correct the request and send again"),
        headers=error.headers or {},
    )


def _path(location: Sequence[int | str]) -> str:
    """Return ``("body", "messages", 0, "content")`` as ``messages[0].content``."""
    path = ""
    for part in location[1:]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

"""How a request reaches its endpoint: body read and parsed once, work bound to the connection.

``OndolRoute`` is the route class of every router. It reads the whole body (bounded by
``BodyLimit``), refuses what is not JSON where JSON is due, and cancels the endpoint when the client
leaves. ``Open`` (the container), ``Life``, ``TimingOf``, ``TermsOf``, ``LimitsOf``, ``MetricsOf``
and ``GoodputOf`` are what endpoints ask for; one that asks for nothing but these and a body is called without FastAPI's solver.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction, signature
from typing import Annotated, Any, TypeVar, get_type_hints

from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ondol.app.container import Container
from ondol.core.errors import Cancelled, InvalidInput
from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms
from ondol.server.auth import terms_of
from ondol.server.lifecycle import Lifecycle
from ondol.server.request_gate import RequestLimits
from ondol.server.schemas import RequestBody
from ondol.server.streaming import unless_disconnected
from ondol.telemetry.goodput import Goodput
from ondol.telemetry.metrics import Metrics

B = TypeVar("B", bound=RequestBody)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRequest(Request):
    """A request whose JSON was parsed by our rules: UTF-8, no lone surrogates, no NaN, not deep."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class OndolRoute(APIRoute):
    """Reads the body first, then runs the endpoint for as long as the client stays."""

    def get_route_handler(self) -> Handler:
        handler = _direct(self) or super().get_route_handler()
        wants_json = self.body_field is not None

        async def handle(request: Request) -> Response:
            ours = JsonRequest(request.scope, request.receive)
            try:
                body = await ours.body()
            except ClientDisconnect:
                raise Cancelled("the client left before its body was complete") from None
            if wants_json:
                require_json(ours)
                ours.parsed = parse_json(body)
            return await unless_disconnected(ours.receive, handler(ours))

        return handle


def require_json(request: Request) -> None:
    """Raise ``InvalidInput`` unless the content type is JSON."""
    kind = media_type(request)
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise InvalidInput(
            f"content type is {kind or 'missing'}, this endpoint takes application/json",
            hint="send the header 'Content-Type: application/json'",
            code="wrong_content_type",
            param="content-type",
        )


def media_type(request: Request) -> str:
    """Return the content type without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_json(body: bytes) -> Any:
    """Return the parsed body; raises ``InvalidInput`` saying where it is malformed."""
    if not body.strip():
        raise InvalidInput(
            "the body is empty", hint="send a JSON object", code="missing_body", param="body"
        )
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(
            f"the body is not valid JSON: {error}",
            hint="send UTF-8 JSON without NaN, lone surrogates or very deep nesting",
            code="malformed_json",
            param="body",
        ) from None


def router(*tags: str) -> APIRouter:
    """Return a router whose routes are ``OndolRoute``."""
    return APIRouter(route_class=OndolRoute, tags=list(tags))


def _direct(route: APIRoute) -> Handler | None:
    """Return a handler that gives the endpoint what it asks for, where we can tell; else ``None``.

    FastAPI's solver takes longer than everything else a lone embedding meets between socket and
    model; most endpoints need none of what it can do. The OpenAPI pages stay FastAPI's.
    """
    wanted = route.dependant
    inputs = (wanted.path_params, wanted.query_params, wanted.header_params, wanted.cookie_params)
    takers = {
        need.name: _TAKEN[need.call]
        for need in wanted.dependencies
        if need.name is not None and need.call in _TAKEN
    }
    bodies: list[tuple[str, Any]] = [
        (field.name, field.field_info.annotation) for field in wanted.body_params
    ]
    endpoint = route.endpoint
    simple = (
        not any(inputs)
        and len(takers) == len(wanted.dependencies)
        and len(bodies) <= 1
        and all(isinstance(kind, type) and issubclass(kind, RequestBody) for _, kind in bodies)
        and set(signature(endpoint).parameters) == {*takers, *(name for name, _ in bodies)}
        and _answers_itself(endpoint)
    )
    if not simple:
        return None

    async def handle(request: Request) -> Response:
        values: dict[str, Any] = {name: take(request) for name, take in takers.items()}
        for name, kind in bodies:
            values[name] = validated(kind, await request.json())
        response: Response = await endpoint(**values)
        return response

    return handle


def _answers_itself(endpoint: Callable[..., Any]) -> bool:
    """Whether the endpoint is a coroutine that returns a finished ``Response``."""
    answer = get_type_hints(endpoint).get("return")
    return (
        iscoroutinefunction(endpoint) and isinstance(answer, type) and issubclass(answer, Response)
    )


def _take_lifecycle(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


def _take_metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.listeners.metrics
    return metrics


def _take_container(request: Request) -> Container:
    return _take_lifecycle(request).container


def _take_timing(request: Request) -> Timing:
    timing: Timing = request.state.timing
    return timing


def _take_limits(request: Request) -> RequestLimits:
    limits: RequestLimits = request.app.state.limits
    return limits


def _take_terms(request: Request) -> RequestTerms:
    return terms_of(request)


async def _terms(request: Request) -> RequestTerms:
    return terms_of(request)


def _take_goodput(request: Request) -> Goodput:
    goodput: Goodput = request.app.state.listeners.goodput
    return goodput


async def _goodput(request: Request) -> Goodput:
    return _take_goodput(request)


async def _lifecycle(request: Request) -> Lifecycle:
    return _take_lifecycle(request)


async def _metrics(request: Request) -> Metrics:
    return _take_metrics(request)


async def _container(request: Request) -> Container:
    return _take_container(request)


async def _timing(request: Request) -> Timing:
    return _take_timing(request)


async def _limits(request: Request) -> RequestLimits:
    return _take_limits(request)


_TAKEN: dict[Any, Callable[[Request], Any]] = {
    _lifecycle: _take_lifecycle,
    _metrics: _take_metrics,
    _container: _take_container,
    _timing: _take_timing,
    _limits: _take_limits,
    _terms: _take_terms,
    _goodput: _take_goodput,
}
"""What FastAPI would await as a dependency, and the same without FastAPI."""

Life = Annotated[Lifecycle, Depends(_lifecycle)]
MetricsOf = Annotated[Metrics, Depends(_metrics)]
GoodputOf = Annotated[Goodput, Depends(_goodput)]
Open = Annotated[Container, Depends(_container)]
TimingOf = Annotated[Timing, Depends(_timing)]
LimitsOf = Annotated[RequestLimits, Depends(_limits)]
TermsOf = Annotated[RequestTerms, Depends(_terms)]


def validated(kind: type[B], data: Any) -> B:
    """Return ``data`` as a body; raises as FastAPI does for the bodies it reads itself."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        ) from None

"""``POST /v1/collections/{c}/ask``: a cited answer, whole or as server-sent events.

Events: ``sources``, then ``token``…, then ``done`` with the whole answer; ``error`` instead of what
would have followed when it breaks.

``POST /v1/collections/{c}/search``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from ondol.answers.ask import AnswerDone, AskEvent, SourcesEvent
from ondol.core.types import TokenEvent
from ondol.server.routing import LimitsOf, Open, TermsOf, TimingOf, router
from ondol.server.schemas import AskBody, SearchBody
from ondol.server.server_errors import json_response, problem_of
from ondol.server.streaming import EventStream, SseRelay, sse

routes = router("ask")


@routes.post("/v1/collections/{collection}/ask")
async def ask(
    collection: str,
    body: AskBody,
    container: Open,
    timing: TimingOf,
    terms: TermsOf,
    limits: LimitsOf,
) -> Response:
    """Answer a question from the collection; every citation stands verbatim in a document."""
    limits.text(body.question, param="question")
    if body.history:
        limits.texts([turn.question for turn in body.history], param="history", empty=False)
    options: dict[str, Any] = {
        **body.model_dump(exclude={"question", "stream", "history"}),
        "history": [turn.turn() for turn in body.history],
        "timing": timing,
        "terms": terms,
    }
    if not body.stream:
        return json_response(asdict(await container.ask.ask(collection, body.question, **options)))
    relay = await SseRelay.started(container.ask.stream(collection, body.question, **options))
    return EventStream(
        relay,
        render=_render,
        failed=lambda error: sse(problem_of(error).envelope(), event="error"),
    )


def _render(event: AskEvent) -> bytes:
    match event:
        case SourcesEvent(hits):
            return sse({"hits": [asdict(hit) for hit in hits]}, event="sources")
        case TokenEvent(text):
            return sse({"text": text}, event="token")
        case AnswerDone(answer):
            return sse(asdict(answer), event="done")


search_routes = router("search")


@search_routes.post("/v1/collections/{collection}/search")
async def search(
    collection: str, body: SearchBody, container: Open, timing: TimingOf, limits: LimitsOf
) -> Response:
    """Return the best passages; ``start`` and ``end`` are offsets into the document's text."""
    limits.text(body.query, param="query")
    result = await container.retrieval.search(
        collection,
        body.query,
        top_k=body.top_k,
        mode=body.mode,
        rerank=body.rerank,
        read=body.read,
        filter=body.filter,
        timing=timing,
    )
    return json_response(asdict(result))

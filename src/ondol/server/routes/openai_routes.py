"""``/v1/embeddings`` and ``/v1/chat/completions`` as OpenAI's clients expect them."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from ondol.core.events import Timing
from ondol.core.types import FloatMatrix, GenerationEvent
from ondol.server.completions import ChatShape
from ondol.server.loaded_models import require_model
from ondol.server.openai_schemas import ChatBody, EmbeddingsBody
from ondol.server.request_gate import RequestLimits
from ondol.server.routing import LimitsOf, Open, TermsOf, TimingOf, router
from ondol.server.server_errors import json_response, problem_of
from ondol.server.streaming import EventStream, SseRelay, sse

routes = router("openai")


@routes.post("/v1/embeddings")
async def create_embeddings(
    body: EmbeddingsBody, container: Open, timing: TimingOf, limits: LimitsOf
) -> Response:
    """Embed texts or token ids; vectors are of length 1, in the order of the input."""
    service = container.embedding
    require_model(container, body.model, loaded=service.model)
    inputs = _inputs(body, limits)
    result = await service.embed(
        inputs,
        role=body.input_type,
        truncate=body.truncate,
        dimensions=body.dimensions,
        timing=timing,
    )
    rows = _rows(result.vectors, base64_rows=body.encoding_format == "base64")
    return json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": row}
                for index, row in enumerate(rows)
            ],
            "model": result.model,
            "usage": {"prompt_tokens": result.tokens, "total_tokens": result.tokens},
        }
    )


@routes.post("/v1/chat/completions")
async def create_chat_completion(
    body: ChatBody, container: Open, timing: TimingOf, terms: TermsOf, limits: LimitsOf
) -> Response:
    """Answer a chat, whole or as server-sent events."""
    chat = container.chat
    request = body.to_request(most_tokens=container.settings.generation.max_tokens)
    if body.model in container.generation.adapters:
        request = replace(request, adapter=body.model)
    else:
        require_model(container, body.model, loaded=chat.model)
    limits.texts([message.content for message in request.messages], param="messages")
    shape = ChatShape(model=chat.model, created=int(time.time()), include_usage=body.include_usage)
    if not body.stream:
        completion = await chat.complete(request, terms=terms, timing=timing)
        return json_response(shape.completion(completion, timing=timing))
    relay = await SseRelay.started(chat.stream(request, terms=terms, timing=timing))
    return EventStream(
        relay,
        render=lambda event: _render(event, shape, timing),
        failed=lambda error: sse(problem_of(error).envelope()),
        opening=sse(shape.opening()),
        last=b"data: [DONE]\n\n",
    )


def _inputs(body: EmbeddingsBody, limits: RequestLimits) -> list[str] | list[list[int]]:
    if body.texts is None:
        limits.count(len(body.token_ids), param="input")
        return body.token_ids
    limits.texts(body.texts, param="input", empty=False)
    return body.texts


def _rows(vectors: FloatMatrix, *, base64_rows: bool) -> list[Any]:
    """Return rows as lists of floats, or as base64 of little-endian float32."""
    if not base64_rows:
        rows: list[Any] = vectors.tolist()
        return rows
    return [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]


def _render(event: GenerationEvent, shape: ChatShape, timing: Timing) -> bytes:
    return b"".join(sse(chunk) for chunk in shape.chunks(event, timing=timing))

"""Rerank, in the shape of Cohere and Jina (``/v1/rerank``) and in TEI's (``/rerank``)."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.responses import Response

from ondol.server.loaded_models import require_model
from ondol.server.routing import LimitsOf, Open, TimingOf, router
from ondol.server.schemas import RerankBody, TeiRerankBody
from ondol.server.server_errors import json_response

routes = router("rerank")


@routes.post("/v1/rerank")
async def rerank(body: RerankBody, container: Open, timing: TimingOf, limits: LimitsOf) -> Response:
    """Return the documents by relevance to the query, best first; scores are 0…1."""
    service = container.reranking
    require_model(container, body.model, loaded=service.model)
    limits.text(body.query, param="query")
    limits.texts(body.documents, param="documents")
    ranked = await service.rerank(
        body.query, body.documents, top_n=body.top_n, truncate=body.truncate, timing=timing
    )
    results: list[dict[str, Any]] = [
        {"index": item.index, "relevance_score": item.score} for item in ranked.results
    ]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": body.documents[result["index"]]}
    return json_response(
        {
            "id": f"rerank-{secrets.token_hex(12)}",
            "model": ranked.model,
            "results": results,
            "usage": {"prompt_tokens": ranked.tokens, "total_tokens": ranked.tokens},
        }
    )


@routes.post("/rerank")
async def rerank_tei(
    body: TeiRerankBody, container: Open, timing: TimingOf, limits: LimitsOf
) -> Response:
    """Return ``[{index, score}]``, best first, as text-embeddings-inference does."""
    limits.text(body.query, param="query")
    limits.texts(body.texts, param="texts")
    ranked = await container.reranking.rerank(
        body.query, body.texts, truncate=body.truncate, timing=timing
    )
    items: list[dict[str, Any]] = [
        {"index": item.index, "score": item.logit if body.raw_scores else item.score}
        for item in ranked.results
    ]
    if body.return_text:
        for item in items:
            item["text"] = body.texts[item["index"]]
    return json_response(items)

"""``POST /v1/collections/{c}/search``."""

from __future__ import annotations

from dataclasses import asdict

from starlette.responses import Response

from ondol.server.errors import json_response
from ondol.server.routing import LimitsOf, Open, TimingOf, router
from ondol.server.schemas_native import SearchBody

routes = router("search")


@routes.post("/v1/collections/{collection}/search")
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

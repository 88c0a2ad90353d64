"""``/v1/collections``: list, create, get, cut anew, delete."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from ondol.server.errors import json_response
from ondol.server.routing import Open, router
from ondol.server.schemas_native import CollectionBody, RechunkBody
from ondol.store.records import Collection

routes = router("collections")


@routes.get("/v1/collections")
async def list_collections(container: Open) -> Response:
    """List all collections with their counts, by name."""
    found = await asyncio.to_thread(container.store.collections)
    return json_response({"collections": [_shape(collection) for collection in found]})


@routes.post("/v1/collections", status_code=201)
async def create_collection(body: CollectionBody, container: Open) -> Response:
    """Create a collection for the loaded embedder's vectors."""
    embedding = container.embedding
    made = await asyncio.to_thread(
        container.store.create_collection,
        body.name,
        embedder=embedding.model,
        dimensions=embedding.dimensions,
        metadata=body.metadata,
        chunking=container.ingest.chunking(body.chunking),
        exist_ok=body.exist_ok,
    )
    return json_response(_shape(made), status=201)


@routes.get("/v1/collections/{collection}")
async def get_collection(collection: str, container: Open) -> Response:
    """Return one collection with its counts."""
    return json_response(_shape(await asyncio.to_thread(container.store.collection, collection)))


@routes.post("/v1/collections/{collection}/rechunk")
async def rechunk_collection(collection: str, body: RechunkBody, container: Open) -> Response:
    """Cut its documents anew from their stored text; embeds only passages that change.

    Stopped by a client that leaves, the next request goes on.
    """
    report = await container.ingest.rechunk(collection, body.chunking, dry_run=body.dry_run)
    return json_response(asdict(report))


@routes.delete("/v1/collections/{collection}")
async def delete_collection(collection: str, container: Open) -> Response:
    """Delete a collection with all its documents, chunks and vectors."""
    await asyncio.to_thread(container.store.delete_collection, collection)
    return json_response({"name": collection, "deleted": True})


def _shape(collection: Collection) -> dict[str, Any]:
    return asdict(collection)

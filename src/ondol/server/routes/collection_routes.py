"""``/v1/collections``: list, create, get, cut anew, delete.

``/v1/collections/{c}/documents``: upload files or records, list, get, delete.

A document's id may hold slashes.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, fields
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from ondol.app.container import Container
from ondol.core.errors import InvalidInput
from ondol.documents.ingest_report import IngestReport
from ondol.server.request_gate import RequestLimits
from ondol.server.routing import (
    LimitsOf,
    Open,
    media_type,
    parse_json,
    require_json,
    router,
    validated,
)
from ondol.server.schemas import CollectionBody, PageQuery, RechunkBody, RecordsBody
from ondol.server.server_errors import json_response
from ondol.server.uploads import uploaded_files
from ondol.store.records import Collection, StoredDocument

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


document_routes = router("documents")

_LISTED = [
    field.name for field in fields(StoredDocument) if field.name not in {"text", "pages", "digest"}
]
_UPLOAD_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {"schema": RecordsBody.model_json_schema()},
        },
    }
}


@document_routes.post("/v1/collections/{collection}/documents", openapi_extra=_UPLOAD_DOCS)
async def add_documents(
    collection: str, request: Request, container: Open, limits: LimitsOf
) -> Response:
    """Take in files (multipart) or records (JSON); what fails is listed, the rest goes in."""
    await asyncio.to_thread(container.store.collection, collection)
    if media_type(request) == "multipart/form-data":
        report = await _ingest_files(container, collection, request, limits)
    else:
        require_json(request)
        records = validated(RecordsBody, parse_json(await request.body())).records
        _check_records(records, limits)
        report = await container.ingest.ingest_records(collection, records)
    return json_response(asdict(report))


@document_routes.get("/v1/collections/{collection}/documents")
async def list_documents(
    collection: str, page: Annotated[PageQuery, Query()], container: Open
) -> Response:
    """List documents by id, without their text; ``next`` is the ``after`` of the next page."""
    found = await asyncio.to_thread(
        container.store.documents, collection, limit=page.limit + 1, after=page.after
    )
    listed = found[: page.limit]
    return json_response(
        {
            "documents": [
                {name: getattr(document, name) for name in _LISTED} for document in listed
            ],
            "next": listed[-1].document if len(found) > page.limit else None,
        }
    )


@document_routes.get("/v1/collections/{collection}/documents/{document:path}")
async def get_document(collection: str, document: str, container: Open) -> Response:
    """Return a document with its stored ``text``, into which all offsets point."""
    return json_response(
        asdict(await asyncio.to_thread(container.store.document, collection, document))
    )


@document_routes.delete("/v1/collections/{collection}/documents/{document:path}")
async def delete_document(collection: str, document: str, container: Open) -> Response:
    """Delete a document with its chunks and vectors."""
    chunks = await asyncio.to_thread(container.store.delete_document, collection, document)
    return json_response({"document": document, "deleted": True, "chunks": chunks})


async def _ingest_files(
    container: Container, collection: str, request: Request, limits: RequestLimits
) -> IngestReport:
    total = IngestReport()
    async with uploaded_files(request, limits=limits) as files:
        for file in files:
            one = await container.ingest.ingest_upload(collection, file.name, file.path)
            for field in fields(IngestReport):
                setattr(total, field.name, getattr(total, field.name) + getattr(one, field.name))
    return total


def _check_records(records: list[Any], limits: RequestLimits) -> None:
    limits.count(len(records), param="records")
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise InvalidInput(
                f"records[{index}] is {type(record).__name__}, it must be an object",
                hint='send objects such as {"id": "1", "text": "…"}',
                param=f"records[{index}]",
            )
        if isinstance(text := record.get("text"), str):
            limits.text(text, param=f"records[{index}].text", empty=True)

"""Frames between the isolated reader and its child: a length, then JSON.

JSON and not pickle: the child parses hostile files, and what it says must not run in the parent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from ondol.core.errors import ReadError
from ondol.core.types import Page, ReadDocument
from ondol.text.readers.contract import ReadFailure, ReadItem

HEADER = struct.Struct(">I")


def encode_frame(value: Mapping[str, Any]) -> bytes:
    """Return ``value`` as one frame."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return HEADER.pack(len(body)) + body


def decode_body(body: bytes) -> dict[str, Any]:
    """Return the value of a frame's body."""
    value: dict[str, Any] = json.loads(body.decode("utf-8", "surrogatepass"))
    return value


def pack_item(item: ReadItem) -> dict[str, Any]:
    """Return ``item`` in JSON shape."""
    if isinstance(item, ReadFailure):
        error = item.error
        return {
            "source": item.source,
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
        }
    return {
        "source": item.source,
        "title": item.title,
        "text": item.text,
        "pages": [[page.number, page.start, page.end] for page in item.pages],
        "metadata": dict(item.metadata),
        "media_type": item.media_type,
        "warnings": list(item.warnings),
    }


def unpack_item(value: Mapping[str, Any]) -> ReadItem:
    """Return the item that ``pack_item`` packed."""
    if "code" in value:
        error = ReadError(
            value["message"], code=value["code"], hint=value["hint"], param=value["source"]
        )
        return ReadFailure(value["source"], error)
    return ReadDocument(
        source=value["source"],
        title=value["title"],
        text=value["text"],
        pages=tuple(Page(*page) for page in value["pages"]),
        metadata=value["metadata"],
        media_type=value["media_type"],
        warnings=tuple(value["warnings"]),
    )

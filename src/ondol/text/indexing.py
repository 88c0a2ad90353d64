"""What of a passage is embedded and indexed: its words with the names it stands under.

A change here changes what a collection holds, so ``RECIPE`` must change with it: every document
is then cut and indexed again at its next ingest, and embedded again where its text changed.
"""

from __future__ import annotations

import hashlib

from ondol.core.types import Passage, ReadDocument

RECIPE = "4"
_SHORT_DOCUMENT = 4000
_DIGEST_BYTES = 16


def indexed_text(document: ReadDocument, passage: Passage) -> str:
    """Return ``passage`` with its document's title (short documents) and heading before it."""
    names = []
    title = document.title
    if title and len(document.text) <= _SHORT_DOCUMENT and not passage.heading.startswith(title):
        names.append(title)
    if passage.heading and passage.heading not in passage.text:
        names.append(passage.heading)
    return "\n".join([*names, passage.text])


def indexed_digest(text: str) -> bytes:
    """Return what tells one indexed text from another; equal texts have equal vectors."""
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()

"""What of a passage is embedded and indexed: its words with the names it stands under.

A change here changes what a collection holds, so ``RECIPE`` must change with it: every document
is then embedded again at its next ingest.
"""

from __future__ import annotations

from ondol.core.types import Passage, ReadDocument

RECIPE = "2"
_SHORT_DOCUMENT = 4000


def indexed_text(document: ReadDocument, passage: Passage) -> str:
    """Return ``passage`` with its document's title (short documents) and heading before it."""
    names = []
    if document.title and len(document.text) <= _SHORT_DOCUMENT:
        names.append(document.title)
    if passage.heading and passage.heading not in passage.text:
        names.append(passage.heading)
    return "\n".join([*names, passage.text])

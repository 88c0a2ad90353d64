"""Everything kept: collections, documents, chunks, vectors and keywords in one SQLite file.

The way in is ``DocumentStore`` (``ondol.store.documents``); ``reciprocal_rank_fusion`` and
``score_fusion`` join the rankings it returns. Imports ``core`` only.
"""

from ondol.store.documents import DocumentStore
from ondol.store.fusion import reciprocal_rank_fusion, score_fusion
from ondol.store.names import collection_name, document_name
from ondol.store.records import (
    ChunkRow,
    Collection,
    NewChunk,
    Problem,
    StoredDocument,
    StoreReport,
)

__all__ = [
    "ChunkRow",
    "Collection",
    "DocumentStore",
    "NewChunk",
    "Problem",
    "StoreReport",
    "StoredDocument",
    "collection_name",
    "document_name",
    "reciprocal_rank_fusion",
    "score_fusion",
]

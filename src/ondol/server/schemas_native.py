"""The request shapes that are Ondol's own, and the two rerank shapes we take over.

Collections, records, search, ask; rerank after Cohere and Jina, and after TEI.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ondol.core.chunking import ChunkStrategy
from ondol.core.errors import InvalidInput
from ondol.core.types import Reading, SearchMode
from ondol.server.schemas import Body, Count, Text
from ondol.text.query_rewriting import Turn

_READ = "Whether a hit is the passage found or what stands around it; null is the server's setting."


class CollectionBody(Body):
    """``POST /v1/collections``."""

    name: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    exist_ok: bool = Field(False, description="Answer with the collection if it exists already.")
    chunking: ChunkStrategy | None = Field(
        None, description="How its documents are cut; null is the server's setting."
    )


class RechunkBody(Body):
    """``POST /v1/collections/{c}/rechunk``."""

    chunking: ChunkStrategy | None = Field(
        None, description="How to cut from now on; null is the collection's own way."
    )
    dry_run: bool = Field(False, description="Change nothing, say what would be done.")


class RecordsBody(Body):
    """``POST /v1/collections/{c}/documents`` as JSON; each record has ``text``, maybe ``id``…"""

    synonyms: ClassVar = {"documents": "records"}

    records: list[Any] = Field(
        description="Objects with `text`, and optionally `id`, `title`, `metadata`."
    )


class SearchBody(Body):
    """``POST /v1/collections/{c}/search``."""

    query: Text
    top_k: Count | None = None
    mode: SearchMode | None = None
    rerank: bool | None = Field(None, description="Force reranking on or off; null decides.")
    read: Reading | None = Field(None, description=_READ)
    filter: dict[str, Any] | None = Field(None, description="Metadata a hit's document must have.")


class TurnBody(Body):
    """An earlier turn of a conversation: what was asked and, if known, what came back."""

    question: Text
    answer: Text = ""
    titles: list[Text] = Field(
        default_factory=list, description="Titles of the documents that the answer cited."
    )

    def turn(self) -> Turn:
        return Turn(self.question, self.answer, tuple(self.titles))


class AskBody(Body):
    """``POST /v1/collections/{c}/ask``."""

    synonyms: ClassVar = {"query": "question"}

    question: Text
    history: list[TurnBody] = Field(
        default_factory=list,
        description="Earlier turns, oldest first; a question that leans on them is completed.",
    )
    top_k: Count | None = None
    mode: SearchMode | None = None
    read: Reading | None = Field(None, description=_READ)
    max_tokens: Count | None = None
    language: Literal["ko", "en"] | None = Field(None, description="Null follows the question.")
    filter: dict[str, Any] | None = None
    stream: bool = False


class RerankBody(Body):
    """``POST /v1/rerank``, the shape of Cohere and Jina."""

    model: Text = "auto"
    query: Text
    documents: list[Text]
    top_n: Count | None = None
    return_documents: bool = True
    truncate: bool = Field(False, description="Cut too long texts instead of refusing them.")

    @field_validator("documents", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Take ``{"text": …}`` for a text, as Cohere and Jina do."""
        if not isinstance(value, list):
            return value
        return [item["text"] if _is_text_object(item) else item for item in value]


class TeiRerankBody(Body):
    """``POST /rerank``, the shape of text-embeddings-inference."""

    query: Text
    texts: list[Text]
    raw_scores: bool = Field(False, description="The model's logits instead of 0…1.")
    return_text: bool = False
    truncate: bool = False
    truncation_direction: Literal["right", "Right"] = "right"


class PageQuery(BaseModel):
    """Which slice of a list: up to ``limit`` items after the one named."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000)
    after: str | None = Field(None, max_length=4096)


def _is_text_object(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    if set(item) != {"text"}:
        raise InvalidInput(
            f"a document has the fields {sorted(map(str, item))[:5]}, only text is read",
            hint='send texts, or objects with only "text"',
            code="unknown_field",
            param="documents",
        )
    return True

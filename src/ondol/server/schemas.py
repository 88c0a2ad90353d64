"""What all request bodies share: strict types, no unknown fields, text without NUL.

An unknown field is an error that names it and the nearest known one; nothing a caller sends is
ignored in silence.

The request shapes that are Ondol's own, and the two rerank shapes we take over.

Collections, records, search, ask; rerank after Cohere and Jina, and after TEI.

The request shape of tasks: the input as the task's own schema wants it.

The request shapes of jobs: handing in, listing, reading results, resuming.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    field_validator,
    model_validator,
)

from ondol.answers.rewriting import ConversationTurn
from ondol.core.chunk_options import ChunkStrategy
from ondol.core.errors import InvalidInput
from ondol.core.types import Reading, SearchMode


def _without_nul(text: str) -> str:
    return text.replace("\x00", "")


Text = Annotated[str, AfterValidator(_without_nul)]
"""A text as callers send it; NUL characters, which mean nothing in a text, are taken out."""

Item = TypeVar("Item")


class _FirstError(FailFast):
    """``FailFast`` that may stand in a union: pydantic's own cannot be hashed."""

    __hash__ = object.__hash__


Items = Annotated[list[Item], _FirstError()]
"""A list as callers send it; the first wrong item is the only error.

Pydantic notes an error an item: a body of two megabytes made 1.6 GB of them and stopped the server.
"""

Count = Annotated[int, Field(gt=0, le=1_000_000)]


class RequestBody(BaseModel):
    """Base of all request bodies.

    ``synonyms`` maps other spellings of a field to ours; both at once are an error.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    synonyms: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _only_known_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = dict(data)
        for other, ours in cls.synonyms.items():
            if other in kept:
                if ours in kept:
                    raise InvalidInput(
                        f"both {ours} and {other} came, they mean the same",
                        hint=f"send {ours} alone",
                        code="duplicate_field",
                        param=other,
                    )
                kept[ours] = kept.pop(other)
        known = cls._names()
        for name in [name for name in kept if name not in known]:
            if not cls.drops(name, kept.pop(name)):
                raise cls._unknown(name)
        return kept

    @classmethod
    def drops(cls, name: str, value: Any) -> bool:
        """Whether a field that is not ours may be left aside; says no unless overridden."""
        return False

    @classmethod
    def _names(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def _unknown(cls, name: str) -> InvalidInput:
        shown = name[:80]
        near = difflib.get_close_matches(shown, [*cls._names(), *cls.synonyms], n=1)
        known = ", ".join(cls._names())
        return InvalidInput(
            f"{shown!r} is not a field of this request",
            hint=f"did you mean {near[0]!r}?" if near else f"the fields are {known}",
            code="unknown_field",
            param=shown,
        )


_READ = "Whether a hit is the passage found or what stands around it; null is the server's setting."


class CollectionBody(RequestBody):
    """``POST /v1/collections``."""

    name: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    exist_ok: bool = Field(False, description="Answer with the collection if it exists already.")
    chunking: ChunkStrategy | None = Field(
        None, description="How its documents are cut; null is the server's setting."
    )


class RechunkBody(RequestBody):
    """``POST /v1/collections/{c}/rechunk``."""

    chunking: ChunkStrategy | None = Field(
        None, description="How to cut from now on; null is the collection's own way."
    )
    dry_run: bool = Field(False, description="Change nothing, say what would be done.")


class RecordsBody(RequestBody):
    """``POST /v1/collections/{c}/documents`` as JSON; each record has ``text``, maybe ``id``…"""

    synonyms: ClassVar = {"documents": "records"}

    records: Items[Any] = Field(
        description="Objects with `text`, and optionally `id`, `title`, `metadata`."
    )


class SearchBody(RequestBody):
    """``POST /v1/collections/{c}/search``."""

    query: Text
    top_k: Count | None = None
    mode: SearchMode | None = None
    rerank: bool | None = Field(None, description="Force reranking on or off; null decides.")
    read: Reading | None = Field(None, description=_READ)
    filter: dict[str, Any] | None = Field(None, description="Metadata a hit's document must have.")


class TurnBody(RequestBody):
    """An earlier turn of a conversation: what was asked and, if known, what came back."""

    question: Text
    answer: Text = ""
    titles: Items[Text] = Field(
        default_factory=list, description="Titles of the documents that the answer cited."
    )

    def turn(self) -> ConversationTurn:
        return ConversationTurn(self.question, self.answer, tuple(self.titles))


class AskBody(RequestBody):
    """``POST /v1/collections/{c}/ask``."""

    synonyms: ClassVar = {"query": "question"}

    question: Text
    history: Items[TurnBody] = Field(
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


class RerankBody(RequestBody):
    """``POST /v1/rerank``, the shape of Cohere and Jina."""

    model: Text = "auto"
    query: Text
    documents: Items[Text]
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


class TeiRerankBody(RequestBody):
    """``POST /rerank``, the shape of text-embeddings-inference."""

    query: Text
    texts: Items[Text]
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


class TaskBody(RequestBody):
    """``POST /v1/tasks/{name}``."""

    input: dict[str, Any] = Field(description="What the task takes; see `GET /v1/tasks/{name}`.")


class JobOptions(RequestBody):
    """How a job is to be worked."""

    priority: int = Field(
        0, ge=-100, le=100, description="Higher goes first among your own jobs; 0 is ordinary."
    )
    key: Text = Field(
        "",
        max_length=200,
        description="A name of your own: sent again with the same items it answers with the same job.",
    )


class JobBody(RequestBody):
    """``POST /v1/jobs`` as JSON; an item that cannot be worked fails alone."""

    task: Text = Field(description="A task of `GET /v1/tasks`.")
    items: Items[Any] = Field(
        description='Objects {"id": "r1", "input": {…}}; the id may be left out.'
    )
    options: JobOptions = JobOptions()


class ResumeBody(RequestBody):
    """``POST /v1/jobs/{id}/resume``."""

    failed: bool = Field(False, description="Also work again what failed.")


class SubmitQuery(BaseModel):
    """``POST /v1/jobs`` as JSON Lines: what is not in the lines."""

    model_config = ConfigDict(extra="forbid")

    task: str = ""
    priority: int = Field(0, ge=-100, le=100)
    key: str = Field("", max_length=200)


class ResultsQuery(BaseModel):
    """Which results, and how: those after the ordinal ``after``, at most ``limit``."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["jsonl", "csv"] = "jsonl"
    after: int = Field(-1, ge=-1, le=2**53)
    limit: int | None = Field(None, ge=1, le=2**31)
    status: Literal["done", "failed", "cancelled"] | None = None


class DeleteQuery(BaseModel):
    """``DELETE /v1/jobs/{id}``: cancel, or with ``purge`` remove a job that has ended."""

    model_config = ConfigDict(extra="forbid")

    purge: bool = False

"""A question to a cited answer: retrieve, select sentences, generate, verify, stream.

Every citation is verified against the stored text before it is shown; what fails is dropped and
counted. When nothing relevant is found the answer says so and the generator is not asked.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, Unpack

import numpy as np

from ondol.answers.citations import AnswerVerifier, Verification
from ondol.answers.features import coverage, features, relevance, signals
from ondol.answers.prompts import NOT_FOUND, UNVERIFIED, Language, ask_messages, says_not_found
from ondol.answers.rewriting import ConversationTurn, QueryRewriter, RewrittenQuestion
from ondol.answers.selection import Excerpt, Sentence, estimate_tokens, pack
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import BackendError
from ondol.core.events import CitationsVerified, NullObserver, Observer, Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.sections import AnswerSettings, RetrievalSettings
from ondol.core.types import (
    Citation,
    DoneEvent,
    GenerationRequest,
    Hit,
    Reading,
    SearchMode,
    TokenEvent,
    Usage,
)
from ondol.language.language import detect
from ondol.language.sentences import split_sentences
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.runtime.generation.chat import ChatService, admitted
from ondol.search.retrieval import RetrievalService

_log = logging.getLogger("ondol.ask")


@dataclass(frozen=True, slots=True)
class AskTimings:
    """Milliseconds; ``ttft_ms`` runs from the question to the first shown token."""

    queue_ms: float
    retrieve_ms: float
    ttft_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with the citations that stood up. ``relevance`` is the estimate behind abstaining.

    ``understood`` is the question as it was answered; it differs from what was asked where that
    leaned on earlier turns.
    """

    answer: str
    citations: list[Citation]
    abstained: bool
    dropped_citations: int
    unsupported_statements: int
    relevance: float
    usage: Usage
    timings: AskTimings
    model: str
    understood: str = ""


@dataclass(frozen=True, slots=True)
class SourcesEvent:
    """The passages the answer may rest on, best first."""

    hits: list[Hit]


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """The end of an answer."""

    answer: Answer


AskEvent = SourcesEvent | TokenEvent | AnswerDone


class AskOptions(TypedDict, total=False):
    """The keyword arguments of ``AskService.stream``, all of which may be left out."""

    history: Sequence[ConversationTurn]
    top_k: int | None
    mode: SearchMode | None
    read: Reading | None
    max_tokens: int | None
    language: Language | None
    filter: Mapping[str, Any] | None
    terms: RequestTerms | None
    timing: Timing | None


@dataclass(slots=True)
class _Course:
    """One question on its way: what was shown of its answer, and when."""

    clock: Clock
    timing: Timing
    question: str = ""
    relevance: float = 0.0
    ttft_ms: float = 0.0
    usage: Usage = field(default_factory=Usage)
    shown: list[str] = field(default_factory=list)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock.monotonic()

    def elapsed_ms(self) -> float:
        return (self.clock.monotonic() - self.started) * 1e3

    def show(self, text: str) -> TokenEvent:
        """Return the event that shows ``text``; the first one is the first token."""
        self.ttft_ms = self.ttft_ms or self.elapsed_ms()
        self.shown.append(text)
        return TokenEvent(text)


class AskService:
    """Answers questions from one collection."""

    def __init__(
        self,
        retrieval: RetrievalService,
        embedding: EmbeddingService,
        chat: ChatService,
        *,
        settings: AnswerSettings,
        context_tokens: int,
        rewriter: QueryRewriter | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._retrieval = retrieval
        self._embedding = embedding
        self._chat = chat
        self._settings = settings
        self._rewriter = rewriter or QueryRewriter(chat, settings=RetrievalSettings())
        self._context_tokens = settings.context_tokens or context_tokens
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()

    async def ask(self, collection: str, question: str, **options: Unpack[AskOptions]) -> Answer:
        """Return the whole answer; options as for ``stream``."""
        async with aclosing(self.stream(collection, question, **options)) as events:
            async for event in events:
                if isinstance(event, AnswerDone):
                    return event.answer
        raise BackendError("the answer ended without saying so", hint="see the log")

    async def stream(
        self,
        collection: str,
        question: str,
        *,
        history: Sequence[ConversationTurn] = (),
        top_k: int | None = None,
        mode: SearchMode | None = None,
        read: Reading | None = None,
        max_tokens: int | None = None,
        language: Language | None = None,
        filter: Mapping[str, Any] | None = None,
        terms: RequestTerms | None = None,
        timing: Timing | None = None,
    ) -> AsyncGenerator[AskEvent]:
        """Yield ``SourcesEvent``, then ``TokenEvent``s, then one ``AnswerDone``.

        ``history`` holds the earlier turns of a conversation, oldest first: a question that leans on
        them is answered as it was meant.
        """
        course = _Course(self._clock, timing or Timing())
        language = language or ("ko" if detect(question) == "ko" else "en")
        meant = await self._rewriter.meant(question, history, terms=terms)
        retrieved = await self._retrieval.search(
            collection,
            question,
            also=meant.also,
            before=meant.before,
            top_k=top_k or 2 * self._settings.passages,
            mode=mode,
            read=read,
            filter=filter,
            timing=course.timing,
            lane=None,
        )
        course.question = meant.standalone
        course.relevance = _relevance(meant, retrieved.hits)
        if course.relevance < self._settings.min_relevance:
            yield SourcesEvent([])
            yield course.show(NOT_FOUND[language])
            yield AnswerDone(self._answer(course, Verification(), abstained=True))
            return
        excerpts = await self.select(course.question, retrieved.hits)
        request = GenerationRequest(
            messages=ask_messages(course.question, excerpts, language=language),
            max_tokens=min(max_tokens or self._settings.max_tokens, self._settings.max_tokens),
        )
        verifier = AnswerVerifier(course.question, excerpts, min_support=self._settings.min_support)
        terms = replace(terms or RequestTerms(), elapsed_ms=course.elapsed_ms())
        chat = self._chat.stream(request, terms=terms, timing=course.timing)
        async with admitted(chat) as events:
            yield SourcesEvent([excerpt.hit for excerpt in excerpts])
            async for event in events:
                if isinstance(event, DoneEvent):
                    course.usage = event.usage
                elif isinstance(event, TokenEvent) and (visible := verifier.feed(event.text)):
                    yield course.show(visible)
        tail, result, abstained = _ending(verifier, "".join(course.shown), language)
        if tail:
            yield course.show(tail)
        self._observer.observe(
            CitationsVerified(verified=len(result.citations), dropped=result.dropped)
        )
        yield AnswerDone(self._answer(course, result, abstained=abstained))

    async def select(self, question: str, hits: Sequence[Hit]) -> list[Excerpt]:
        """Return the sentences of ``hits`` that go before the generator, best excerpt first.

        A sentence scores by its cosine to the question, its share of the question's words and the rank
        of its passage.
        """
        spans = [(n, s, e) for n, hit in enumerate(hits) for s, e in split_sentences(hit.text)]
        if not spans:
            return []
        texts = [hits[n].text[s:e] for n, s, e in spans]
        labelled = [
            f"{hits[n].heading or hits[n].title}\n{text}"
            if hits[n].heading or hits[n].title
            else text
            for (n, _, _), text in zip(spans, texts, strict=True)
        ]
        query = await self._embedding.embed([question], role="query", truncate=True, lane=None)
        rows = await self._embedding.embed(labelled, role="document", truncate=True, lane=None)
        cosines = rows.vectors @ query.vectors[0]
        spread = float(np.ptp(cosines)) or 1.0
        wanted = features(question)
        sentences = [
            Sentence(
                hit=n,
                start=s,
                end=e,
                score=(float(cosine) - float(cosines.max())) / spread
                + 0.5 * coverage(wanted, features(text))
                - 0.04 * n,
                tokens=estimate_tokens(text),
            )
            for (n, s, e), text, cosine in zip(spans, texts, cosines, strict=True)
        ]
        return pack(
            hits, sentences, budget=self._context_tokens, max_excerpts=self._settings.passages
        )

    def _answer(self, course: _Course, result: Verification, *, abstained: bool) -> Answer:
        course.timing.total_ms = course.elapsed_ms()
        return Answer(
            answer="".join(course.shown).strip(),
            citations=list(result.citations),
            abstained=abstained,
            dropped_citations=result.dropped,
            unsupported_statements=result.unsupported,
            relevance=course.relevance,
            usage=course.usage,
            timings=AskTimings(
                queue_ms=course.timing.queue_ms,
                retrieve_ms=course.timing.retrieve_ms,
                ttft_ms=course.ttft_ms,
                total_ms=course.timing.total_ms,
            ),
            model=self._chat.model,
            understood=course.question,
        )


def _ending(
    verifier: AnswerVerifier, shown: str, language: Language
) -> tuple[str, Verification, bool]:
    """Return what is still to be shown, what stood up, and whether the answer says "not found"."""
    tail, result = verifier.finish(), verifier.result
    if says_not_found(shown + tail):
        return tail, replace(result, citations=[], unsupported=0), True
    if result.statements and not result.citations:
        tail += f" {UNVERIFIED[language]}"
    return tail, result, False


def _relevance(meant: RewrittenQuestion, hits: Sequence[Hit]) -> float:
    """Return how likely ``hits`` hold the answer, in the wording that says more; 0 for no hit."""
    if not hits:
        return 0.0
    return max(relevance(signals(asked, hits)) for asked in (meant.asked, *meant.also))

"""A question to a cited answer: retrieve, select sentences, generate, verify, stream.

Every citation is verified against the stored text before it is shown; what fails is dropped and
counted. When nothing relevant is found the answer says so and the generator is not asked.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ondol.answers.citations import AnswerVerifier, Verification
from ondol.answers.features import coverage, features, relevance, signals
from ondol.answers.prompts import NOT_FOUND, UNVERIFIED, Language, ask_messages, says_not_found
from ondol.answers.rewriting import Meant, QueryRewriter, Turn
from ondol.answers.selection import Excerpt, Sentence, estimate_tokens, pack
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import BackendError
from ondol.core.events import CitationsVerified, NullObserver, Observer, Timing
from ondol.core.request_terms import Terms
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

    async def ask(self, collection: str, question: str, **options: Any) -> Answer:
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
        history: Sequence[Turn] = (),
        top_k: int | None = None,
        mode: SearchMode | None = None,
        read: Reading | None = None,
        max_tokens: int | None = None,
        language: Language | None = None,
        filter: Mapping[str, Any] | None = None,
        terms: Terms | None = None,
        timing: Timing | None = None,
    ) -> AsyncGenerator[AskEvent]:
        """Yield ``SourcesEvent``, then ``TokenEvent``s, then one ``AnswerDone``.

        ``history`` holds the earlier turns of a conversation, oldest first: a question that leans on
        them is answered as it was meant.
        """
        started = self._clock.monotonic()
        timing = timing or Timing()
        language = language or ("ko" if detect(question) == "ko" else "en")
        meant = await self._rewriter.meant(question, history, terms=terms)
        found = await self._retrieval.search(
            collection,
            question,
            also=meant.also,
            before=meant.before,
            top_k=top_k or 2 * self._settings.passages,
            mode=mode,
            read=read,
            filter=filter,
            timing=timing,
            lane=None,
        )
        estimate = _relevance(meant, found.hits)
        question = meant.standalone
        if estimate < self._settings.min_relevance:
            yield SourcesEvent([])
            yield TokenEvent(NOT_FOUND[language])
            now = (self._clock.monotonic() - started) * 1e3
            yield AnswerDone(
                self._answer(
                    question,
                    NOT_FOUND[language],
                    Verification(),
                    True,
                    estimate,
                    Usage(),
                    timing,
                    now,
                    now,
                )
            )
            return
        excerpts = await self.select(question, found.hits)
        request = GenerationRequest(
            messages=ask_messages(question, excerpts, language=language),
            max_tokens=min(max_tokens or self._settings.max_tokens, self._settings.max_tokens),
        )
        verifier = AnswerVerifier(question, excerpts, min_support=self._settings.min_support)
        shown: list[str] = []
        usage = Usage()
        ttft_ms = 0.0
        elapsed = (self._clock.monotonic() - started) * 1e3
        terms = replace(terms or Terms(), elapsed_ms=elapsed)
        async with admitted(self._chat.stream(request, terms=terms, timing=timing)) as events:
            yield SourcesEvent([excerpt.hit for excerpt in excerpts])
            async for event in events:
                match event:
                    case TokenEvent(text):
                        visible = verifier.feed(text)
                        if visible:
                            ttft_ms = ttft_ms or (self._clock.monotonic() - started) * 1e3
                            shown.append(visible)
                            yield TokenEvent(visible)
                    case DoneEvent(_, counted):
                        usage = counted
        tail = verifier.finish()
        abstained = says_not_found("".join(shown) + tail)
        result = verifier.result
        if abstained:
            result = replace(result, citations=[], unsupported=0)
        elif result.statements and not result.citations:
            tail += f" {UNVERIFIED[language]}"
        if tail:
            ttft_ms = ttft_ms or (self._clock.monotonic() - started) * 1e3
            shown.append(tail)
            yield TokenEvent(tail)
        self._observer.observe(
            CitationsVerified(verified=len(result.citations), dropped=result.dropped)
        )
        total_ms = (self._clock.monotonic() - started) * 1e3
        text = "".join(shown).strip()
        yield AnswerDone(
            self._answer(
                question, text, result, abstained, estimate, usage, timing, ttft_ms, total_ms
            )
        )

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

    def _answer(
        self,
        understood: str,
        text: str,
        result: Verification,
        abstained: bool,
        estimate: float,
        usage: Usage,
        timing: Timing,
        ttft_ms: float,
        total_ms: float,
    ) -> Answer:
        timing.total_ms = total_ms
        return Answer(
            answer=text,
            citations=list(result.citations),
            abstained=abstained,
            dropped_citations=result.dropped,
            unsupported_statements=result.unsupported,
            relevance=estimate,
            usage=usage,
            timings=AskTimings(
                queue_ms=timing.queue_ms,
                retrieve_ms=timing.retrieve_ms,
                ttft_ms=ttft_ms,
                total_ms=total_ms,
            ),
            model=self._chat.model,
            understood=understood,
        )


def _relevance(meant: Meant, hits: Sequence[Hit]) -> float:
    """Return how likely ``hits`` hold the answer, in the wording that says more; 0 for no hit."""
    if not hits:
        return 0.0
    return max(relevance(signals(asked, hits)) for asked in (meant.asked, *meant.also))

"""What a question of a conversation means on its own, by rules or by the generator.

Only a question that leans on an earlier one is touched. The generator gets a few seconds; where it is
late, busy or says nothing useful, the rules hold. What was asked stays: searches look for both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ondol.core.errors import OndolError
from ondol.core.setting_sections import RetrievalSettings
from ondol.core.terms import Terms
from ondol.core.types import GenerationRequest
from ondol.services.chat import ChatService
from ondol.text.language import detect
from ondol.text.query_rewriting import (
    Turn,
    leans_back,
    rewriting_messages,
    rewritten_question,
    said_before,
    standalone,
)

MAX_TOKENS = 80

_log = logging.getLogger("ondol.rewriting")


@dataclass(frozen=True, slots=True)
class Meant:
    """A question as it was ``asked``, what it means on its own, and who said so ("": nobody had to).

    ``before`` are the earlier questions it leans on, none where it does not.
    """

    asked: str
    standalone: str
    by: Literal["", "rules", "generator"] = ""
    before: str = ""

    @property
    def also(self) -> tuple[str, ...]:
        """The other wording to search for; none where the question stood on its own."""
        return () if self.standalone == self.asked else (self.standalone,)


class QueryRewriter:
    """Rewrites as ``settings.rewrite`` says; without ``chat`` by rules at most."""

    def __init__(self, chat: ChatService | None, *, settings: RetrievalSettings) -> None:
        self._chat = chat
        self._how = settings.rewrite
        self._seconds = settings.rewrite_seconds

    async def meant(
        self, question: str, history: Sequence[Turn], *, terms: Terms | None = None
    ) -> Meant:
        """Return what ``question`` means after ``history``, oldest turn first; never fails for it."""
        if self._how == "off" or not history or not leans_back(question):
            return Meant(question, question)
        before = said_before(history)
        if self._how == "generator" and self._chat is not None:
            found = await self._generated(self._chat, question, history, terms)
            if found:
                return Meant(question, found, "generator", before)
        found = standalone(question, history)
        return Meant(question, found, "rules" if found != question else "", before)

    async def _generated(
        self, chat: ChatService, question: str, history: Sequence[Turn], terms: Terms | None
    ) -> str:
        language: Literal["ko", "en"] = "ko" if detect(question) == "ko" else "en"
        request = GenerationRequest(
            messages=rewriting_messages(question, history, language=language),
            max_tokens=MAX_TOKENS,
            stop=("\n",),
        )
        try:
            async with asyncio.timeout(self._seconds):
                done = await chat.complete(request, terms=terms)
        except TimeoutError:
            _log.info("rewriting took longer than %g s; the rules hold", self._seconds)
            return ""
        except OndolError as error:
            _log.info("rewriting failed (%s); the rules hold", error.code)
            return ""
        return rewritten_question(done.text)

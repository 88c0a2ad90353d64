"""Makes a follow-up question stand on its own: whether it leans on earlier turns, and what it lacks.

Pure rules on the outer marks of Korean and English: connectives, pointing words, brevity. They may
err on either side, so a search keeps the question as it was asked beside what they make of it. A later
turn may lean on one that itself leaned: turns are taken in order.

What a question of a conversation means on its own, by rules or by the generator.

Only a question that leans on an earlier one is touched. The generator gets a few seconds; where it is
late, busy or says nothing useful, the rules hold. What was asked stays: searches look for both.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ondol.answers.prompts import Language, defuse
from ondol.core.errors import OndolError
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.sections import RetrievalSettings
from ondol.core.types import GenerationRequest, Message
from ondol.language.language import detect, has_hangul
from ondol.runtime.generation.chat import ChatService

TURNS = 4
"""Earlier turns that are looked at, the latest."""

MAX_CHARS = 300
"""Longest earlier question that is carried on; of a longer one its end is."""

_KO_OPENING = re.compile(
    r"^(?:그럼|그러면|그렇다면|그런데|근데|그리고|그래도|그런|그러다|그때|그동안|그 |그[건게걸거]|그것|그분|거기|이때|이 경우|이[건게걸]\s"
    r"|이것|또는?\s|반대로|아니면|만약에?\s그|해당\s|위\s|앞의|방금|나머지|다른\s)"
)
_KO_POINTING = re.compile(
    r"(?:^|\s)(?:그것|그거|그건|그게|그걸|거기|이것|이건|그 [가-힣]+|해당 [가-힣]+)"
)
_EN_OPENING = re.compile(
    r"^(?:and|but|so|then|or|also|what about|how about|what if|in that case|otherwise|else|same for)\b",
    re.IGNORECASE,
)
_EN_POINTING = re.compile(
    r"\b(?:it|its|they|them|their|theirs|those|these|he|she|him|his|her|hers|ones?)\b"
    r"|\b(?:this|that)\b(?!\s+\w)",
    re.IGNORECASE,
)
_EN_FILLING_IT = re.compile(
    r"\b(?:does|did|do|will|would) it (?:take|cost)\b|\b(?:is|was) it (?:possible|allowed|okay|ok|true|"
    r"necessary|required)\b|\bif it (?:rains|snows)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_FEW_WORDS = 4
"""So short a question, in a conversation, hardly stands alone."""

_POINTING_WORDS = 12
"""Above these many words what is pointed at stands, as a rule, in the question itself."""

_LABEL = re.compile(r"^(?:고친 질문|질문|rewritten question|question)\s*[:：]\s*", re.IGNORECASE)
_WRAPPING = re.compile(r"^[\"'“‘「*]+|[\"'”’」*]+$")
_SYSTEM: dict[Language, str] = {
    "ko": (
        "마지막 질문을 앞의 대화를 모르는 사람도 알아듣도록 완전한 한 문장의 질문으로 고쳐 쓰세요. "
        "빠진 주제어를 앞의 대화에서 가져오고, 답하지 말고 고친 질문만 쓰세요."
    ),
    "en": (
        "Rewrite the last question as one complete question that somebody who did not see the "
        "conversation understands. Take the missing words from the conversation. Do not answer; "
        "write the rewritten question only."
    ),
}
_LABELS: dict[Language, tuple[str, str, str, str]] = {
    "ko": ("이전 질문", "답", "마지막 질문", "고친 질문"),
    "en": ("Earlier question", "Answer", "Last question", "Rewritten question"),
}


@dataclass(frozen=True, slots=True)
class ConversationTurn:
    """An earlier question with what it was answered; ``titles`` are of the documents it cited."""

    question: str
    answer: str = ""
    titles: tuple[str, ...] = ()


def leans_back(question: str) -> bool:
    """Return whether ``question`` seems to need an earlier one to be understood."""
    asked = " ".join(question.split())
    words = len(_WORD.findall(asked))
    if words == 0:
        return False
    if words <= _FEW_WORDS:
        return True
    korean = has_hangul(asked)
    if (_KO_OPENING if korean else _EN_OPENING).search(asked):
        return True
    pointing = _KO_POINTING.search(asked) or _EN_POINTING.search(_EN_FILLING_IT.sub(" ", asked))
    return bool(words <= _POINTING_WORDS and pointing)


def standalone(question: str, history: Sequence[ConversationTurn]) -> str:
    """Return ``question`` with the one it leans on before it, or as it is where it leans on none.

    Of a question that itself leaned, what it leaned on is carried too. At most the last four turns
    and 300 characters of what came before.
    """
    return _joined(said_before(history), question)


def said_before(history: Sequence[ConversationTurn]) -> str:
    """Return the last question of ``history`` with those it leans on before it."""
    meant = ""
    for turn in history[-TURNS:]:
        meant = _joined(meant, turn.question)
    return meant


def _joined(before: str, question: str) -> str:
    asked = " ".join(question.split())
    if not before or not leans_back(asked):
        return asked
    return f"{before[-MAX_CHARS:]} {asked}"


def rewriting_messages(
    question: str, history: Sequence[ConversationTurn], *, language: Language
) -> list[Message]:
    """Return the chat messages that ask a generator for ``question`` in words that stand alone."""
    told, answered, asked, wanted = _LABELS[language]
    lines = []
    for turn in history[-TURNS:]:
        lines.append(f"{told}: {turn.question[-MAX_CHARS:]}")
        if turn.answer:
            lines.append(f"{answered}: {turn.answer[:MAX_CHARS]}")
    lines += [f"{asked}: {question}", f"{wanted}:"]
    return [
        Message(role="system", content=_SYSTEM[language]),
        Message(role="user", content=defuse("\n".join(lines))),
    ]


def rewritten_question(reply: str) -> str:
    """Return the question in a generator's reply, on one line; empty where there is none."""
    for line in reply.splitlines():
        found = _WRAPPING.sub("", _LABEL.sub("", line.strip())).strip()
        if _WORD.search(found):
            return found[:MAX_CHARS]
    return ""


MAX_TOKENS = 80

_log = logging.getLogger("ondol.rewriting")


@dataclass(frozen=True, slots=True)
class RewrittenQuestion:
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
        self,
        question: str,
        history: Sequence[ConversationTurn],
        *,
        terms: RequestTerms | None = None,
    ) -> RewrittenQuestion:
        """Return what ``question`` means after ``history``, oldest turn first; never fails for it."""
        if self._how == "off" or not history or not leans_back(question):
            return RewrittenQuestion(question, question)
        before = said_before(history)
        if self._how == "generator" and self._chat is not None:
            found = await self._generated(self._chat, question, history, terms)
            if found:
                return RewrittenQuestion(question, found, "generator", before)
        found = standalone(question, history)
        return RewrittenQuestion(question, found, "rules" if found != question else "", before)

    async def _generated(
        self,
        chat: ChatService,
        question: str,
        history: Sequence[ConversationTurn],
        terms: RequestTerms | None,
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

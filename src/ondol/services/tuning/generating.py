"""Measures one way to run a generator: started, asked, timed, closed.

Times are the engine's own where it gives them, and the best of some repeats, which other work on
the machine disturbed least. Greedy answers are compared with the reference's. Chooses nothing.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ondol.backends.base import Generator
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock
from ondol.core.errors import OndolError
from ondol.core.types import DoneEvent, GenerationRequest, Message, TokenEvent, Usage
from ondol.models.tuning.generators import (
    GeneratorCandidate,
    GeneratorFigures,
    MeasuredGenerator,
)

_MB = 1e6
_SENTENCE = "The tenant pays the rent on the first day of every month; see section {n}. "
_TOKENS_A_SENTENCE = 18
_QUESTIONS = (
    "Why is the sky blue?",
    "Write one sentence about a heated floor.",
    "온돌이 무엇인지 한 문장으로 설명하세요.",
    "Name the four seasons in order.",
    "What is the capital of Korea, and which river crosses it?",
    "계약서에서 임대료가 무엇을 뜻하나요?",
    "List three uses of copper.",
    "Explain what a queue is to a child.",
)


@dataclass(frozen=True, slots=True)
class Dose:
    """How much is asked: tokens of the two prompts and the answers, repeats, texts compared."""

    long: int = 700
    short: int = 64
    answer: int = 48
    repeats: int = 3
    questions: int = 8
    compared: int = 24


QUICK = Dose(long=200, answer=12, repeats=2, questions=2, compared=12)


@dataclass(slots=True)
class GeneratorMeasurer:
    """Measures candidates with ``start``; the first that runs is the reference of agreement."""

    start: Callable[[GeneratorCandidate], Generator]
    slots: int
    dose: Dose
    clock: Clock
    reference: list[list[str]] = field(default_factory=list)

    def measure(self, candidate: GeneratorCandidate) -> MeasuredGenerator:
        """Return the candidate's figures, or the failure it met."""
        try:
            before, began = _family(os.getpid()), self.clock.monotonic()
            generator = self.start(candidate)
            load = self.clock.monotonic() - began
            try:
                figures = self._figures(generator, load, before)
            finally:
                generator.close()
        except OndolError as error:
            return MeasuredGenerator(candidate, failure=error.message)
        return MeasuredGenerator(candidate, figures=figures)

    def _figures(self, generator: Generator, load: float, before: set[int]) -> GeneratorFigures:
        dose = self.dose
        _run(generator, "warm up", tokens=4)
        texts = [_run(generator, text, tokens=dose.compared)[0] for text in self._questions()]
        self.reference = self.reference or texts
        return GeneratorFigures(
            prefill_tokens_per_second=self._prefill(generator, dose.long, dose.repeats),
            prefill_short_tokens_per_second=self._prefill(generator, dose.short, dose.repeats),
            decode_tokens_per_second=max(
                _decode(_run(generator, f"Tell story {n}.", tokens=dose.answer)[1])
                for n in range(dose.repeats)
            ),
            streams_tokens_per_second=self._streams(generator),
            peak_rss_mb=sum(map(_peak_of, _family(os.getpid()) - before)) / _MB,
            load_seconds=load,
            agreement=_agreement(texts, self.reference),
        )

    def _questions(self) -> Sequence[str]:
        return _QUESTIONS[: self.dose.questions]

    def _prefill(self, generator: Generator, tokens: int, repeats: int) -> float:
        """Return prompt tokens a second; every prompt differs from its first word on."""
        rates: list[float] = []
        for n in range(repeats):
            count = max(1, tokens // _TOKENS_A_SENTENCE)
            text = "".join(_SENTENCE.format(n=f"{tokens}-{n}-{i}") for i in range(count))
            done = _run(generator, f"{n} of {tokens}. {text}", tokens=1, salt=f"{tokens}-{n}")[1]
            read = done.usage.prompt_tokens - done.usage.cached_tokens
            rates.append(read / max(done.prefill_ms, 1e-3) * 1e3)
        return max(rates)

    def _streams(self, generator: Generator) -> float:
        """Return decoded tokens a second of all slots together."""
        ends: list[DoneEvent] = []

        def work(n: int) -> None:
            try:
                ends.append(_run(generator, f"Tell story {n}.", tokens=self.dose.answer)[1])
            except OndolError as error:
                failures.append(error)

        failures: list[OndolError] = []
        threads = [threading.Thread(target=work, args=(n,)) for n in range(self.slots)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        longest = max(end.decode_ms for end in ends)
        return sum(end.usage.completion_tokens for end in ends) / max(longest, 1e-3) * 1e3


def _run(
    generator: Generator, text: str, *, tokens: int, salt: str = ""
) -> tuple[list[str], DoneEvent]:
    request = GenerationRequest([Message("user", text)], max_tokens=tokens, cache_salt=salt)
    pieces: list[str] = []
    done = DoneEvent("stop", usage=Usage())
    for event in generator.generate(request, cancel=CancelToken()):
        if isinstance(event, TokenEvent):
            pieces.append(event.text)
        elif isinstance(event, DoneEvent):
            done = event
    return pieces, done


def _decode(done: DoneEvent) -> float:
    return done.usage.completion_tokens / max(done.decode_ms, 1e-3) * 1e3


def _agreement(texts: Sequence[list[str]], reference: Sequence[list[str]]) -> float:
    """Return the mean share of characters at the beginning that are the reference's."""
    shares: list[float] = []
    for pieces, wanted in zip(texts, reference, strict=True):
        text, right = "".join(pieces), "".join(wanted)
        same = next((n for n in range(len(right)) if text[: n + 1] != right[: n + 1]), len(right))
        shares.append(same / len(right) if right else 1.0)
    return statistics.mean(shares) if shares else 1.0


def _family(pid: int) -> set[int]:
    """Return ``pid`` and the processes it and its threads have started; empty where not on Linux."""
    inner = {
        int(child)
        for page in Path(f"/proc/{pid}/task").glob("*/children")
        for child in _read(page).split()
    }
    return {pid, *(one for child in inner for one in _family(child))}


def _read(page: Path) -> str:
    try:
        return page.read_text()
    except OSError:  # it has just ended
        return ""


def _peak_of(pid: int) -> int:
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    line = next((line for line in lines if line.startswith("VmHWM:")), "VmHWM: 0")
    return int(line.split()[1]) * 1024

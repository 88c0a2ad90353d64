"""What ``ondol tune`` tries of a generator, and how it chooses. Pure; knows no model and no process.

The search goes in rounds: every form as it comes, then fewer threads and other chunks of the best.
Prefill and decode are measured apart, because lanes weigh them differently: ``chat`` wants a first
token soon and short waits between chunks, ``batch`` the most tokens a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ondol.core.errors import GateFailed
from ondol.models.prefill import CHUNK_SECONDS, SMALLEST, chunk_tokens
from ondol.models.profile import Chosen, Purpose

GeneratorPurpose = Literal["chat", "batch"]
LEAST_AGREEMENT = 0.5
"""Greedy texts that begin like the reference's: near ties fall otherwise with other arithmetic, so
whole agreement cannot be asked for; weights that differ agree far less."""

_CHAT = (400, 100)
_BATCH = (300, 100)
"""Prompt and answer tokens of a typical request of either shape."""
_PATIENCE = 1.5
"""How far a chunk may exceed ``CHUNK_SECONDS``: speeds vary that much on a shared machine."""
_BATCH_CHUNKS = (128, 512)


@dataclass(frozen=True, slots=True)
class GeneratorCandidate:
    """A way to run a generator; ``token_budget`` is its prefill chunk."""

    form: str
    threads: int
    token_budget: int

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.form}, {threads}, chunks of {self.token_budget}"


@dataclass(frozen=True, slots=True)
class GeneratorFigures:
    """What was measured: tokens a second, memory in MB (10^6 bytes), ``agreement`` as a share.

    ``streams_tokens_per_second`` is decoding of all slots together.
    """

    prefill_tokens_per_second: float
    prefill_short_tokens_per_second: float
    decode_tokens_per_second: float
    streams_tokens_per_second: float
    peak_rss_mb: float
    load_seconds: float
    agreement: float

    @property
    def chat_seconds(self) -> float:
        """How long a typical chat request takes alone."""
        prompt, answer = _CHAT
        return prompt / self.prefill_tokens_per_second + answer / self.decode_tokens_per_second

    @property
    def batch_rate(self) -> float:
        """Tokens a second, prompt and answer, with every slot busy."""
        prompt, answer = _BATCH
        seconds = prompt / self.prefill_tokens_per_second + answer / self.streams_tokens_per_second
        return (prompt + answer) / seconds


@dataclass(frozen=True, slots=True)
class MeasuredGenerator:
    """A candidate after its measurement: ``figures``, or ``failure`` in one sentence."""

    candidate: GeneratorCandidate
    figures: GeneratorFigures | None = None
    failure: str = ""

    @property
    def eligible(self) -> bool:
        """Whether it may be chosen by itself."""
        return self.figures is not None and self.figures.agreement >= LEAST_AGREEMENT

    def as_row(self) -> dict[str, Any]:
        """Return this as one flat row of JSON."""
        figures = asdict(self.figures) if self.figures else {"failure": self.failure}
        return {**asdict(self.candidate), **figures}


def from_row(row: Mapping[str, Any]) -> MeasuredGenerator:
    """Return what ``as_row`` wrote; raises ``KeyError`` or ``TypeError`` where it did not."""
    names = GeneratorFigures.__slots__
    return MeasuredGenerator(
        GeneratorCandidate(row["form"], int(row["threads"]), int(row["token_budget"])),
        figures=None if "failure" in row else GeneratorFigures(**{n: row[n] for n in names}),
        failure=row.get("failure", ""),
    )


def form_round(forms: Sequence[str], *, cores: int, chunk: int) -> list[GeneratorCandidate]:
    """Return every form with all cores and the estimated chunk, the reference first."""
    return [GeneratorCandidate(form, cores, chunk) for form in dict.fromkeys(forms)]


def detail_round(measured: Sequence[MeasuredGenerator], *, cores: int) -> list[GeneratorCandidate]:
    """Return the best form of each purpose with fewer threads, and with other chunks."""
    found: list[GeneratorCandidate] = []
    for winner in {_chat_winner(measured), _batch_winner(measured)} - {None}:
        if winner is None or winner.figures is None:
            continue
        form = winner.candidate.form
        fits = chunk_tokens(winner.figures.prefill_tokens_per_second)
        fewer = {max(1, cores // 2), max(1, cores - 1)} - {cores}
        found += [GeneratorCandidate(form, n, winner.candidate.token_budget) for n in fewer]
        found += [GeneratorCandidate(form, cores, chunk) for chunk in (fits, *_BATCH_CHUNKS)]
    known = {one.candidate for one in measured}
    return [one for one in dict.fromkeys(found) if one not in known]


def choose_generators(
    measured: Sequence[MeasuredGenerator], *, slots: int
) -> dict[Purpose, Chosen]:
    """Return the choice for each purpose; raises ``GateFailed`` when nothing may be chosen."""
    winners = {"chat": _chat_winner(measured), "batch": _batch_winner(measured)}
    chosen: dict[Purpose, Chosen] = {}
    for purpose in ("chat", "batch"):
        winner = winners[purpose]
        if winner is None:
            raise GateFailed(
                f"no form of the generator ran and agreed with the reference in "
                f"{LEAST_AGREEMENT:.0%} of its text",
                hint="see `ondol tune --json` for why; name a form with generation.form",
            )
        one = winner.candidate
        chosen[purpose] = Chosen(one.form, one.threads, one.token_budget, streams=slots)
    return chosen


def verdict(one: MeasuredGenerator, chosen: Mapping[Purpose, Chosen]) -> str:
    """Return in a few words how ``one`` ended."""
    mine = one.candidate
    won = [
        purpose
        for purpose, best in chosen.items()
        if (best.form, best.threads, best.token_budget)
        == (mine.form, mine.threads, mine.token_budget)
    ]
    if won:
        return f"chosen for {' and '.join(won)}"
    if one.figures is None:
        return one.failure
    return "slower" if one.eligible else "its text differs too much from the reference's"


def _chat_winner(measured: Sequence[MeasuredGenerator]) -> MeasuredGenerator | None:
    """The least time of a request among those whose chunk nobody waits for too long."""
    eligible = [one for one in measured if one.eligible]
    prompt = [one for one in eligible if _waits_little(one)] or eligible
    return min(prompt, key=lambda one: one.figures.chat_seconds if one.figures else 0, default=None)


def _batch_winner(measured: Sequence[MeasuredGenerator]) -> MeasuredGenerator | None:
    eligible = [one for one in measured if one.eligible]
    return max(eligible, key=lambda one: one.figures.batch_rate if one.figures else 0, default=None)


def _waits_little(one: MeasuredGenerator) -> bool:
    if one.figures is None:
        return False
    seconds = one.candidate.token_budget / one.figures.prefill_tokens_per_second
    return one.candidate.token_budget <= SMALLEST or seconds <= _PATIENCE * CHUNK_SECONDS

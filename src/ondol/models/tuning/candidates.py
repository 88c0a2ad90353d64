"""What ``ondol tune`` tries: engines (form x thread split) and candidates (engine x batching).

The search goes in rounds so that it stays affordable: every form as it comes, then thread splits,
then budgets and length policies of the best ones only. Pure; knows no model and no process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ondol.models.profile import Chosen, LengthPolicy

Round = Literal["forms", "threads", "budgets"]
ROUNDS: tuple[Round, ...] = ("forms", "threads", "budgets")

DEFAULT_BUDGET = 2048
BUDGETS = (512, 1024, 2048, 4096)

SERVED_POLICIES: tuple[LengthPolicy, ...] = ("nearest",)
"""What the engine's scheduler does; other policies are measured to show what that brings."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded form: ``streams`` encoders side by side, each with ``threads`` threads."""

    form: str
    threads: int
    streams: int = 1

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.form}, {f'{self.streams} x ' if self.streams > 1 else ''}{threads}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine and how its batches are made; ``token_budget`` bounds one batch."""

    engine: Engine
    token_budget: int = DEFAULT_BUDGET
    policy: LengthPolicy = "nearest"

    @property
    def form(self) -> str:
        return self.engine.form

    def __str__(self) -> str:
        return f"{self.engine}, {self.token_budget} tokens, {self.policy}"

    def as_chosen(self) -> Chosen:
        """Return the candidate as the profile has it."""
        return Chosen(
            form=self.engine.form,
            threads=self.engine.threads,
            token_budget=self.token_budget,
            policy=self.policy,
            streams=self.engine.streams,
        )


def form_round(forms: Sequence[str], *, cores: int) -> list[Candidate]:
    """Return every form with all cores and the default batching."""
    return [Candidate(Engine(form, cores)) for form in dict.fromkeys(forms)]


def thread_round(
    engines: Sequence[Engine], *, cores: int, streams: bool = False
) -> list[Candidate]:
    """Return the engines again, and each with one thread, and (``streams``) as two half ones."""
    found: list[Candidate] = []
    for engine in engines:
        splits = [engine, Engine(engine.form, 1)]
        if streams and cores >= 2:
            splits.append(Engine(engine.form, max(1, cores // 2), streams=2))
        found += [Candidate(split) for split in dict.fromkeys(splits)]
    return list(dict.fromkeys(found)) if cores > 1 else []


def budget_round(engines: Sequence[Engine]) -> list[Candidate]:
    """Return the engines with every token budget, smallest first, and with batches as they come."""
    return [
        candidate
        for engine in dict.fromkeys(engines)
        for candidate in (
            *(Candidate(engine, budget) for budget in BUDGETS),
            Candidate(engine, policy="arrival"),
        )
    ]

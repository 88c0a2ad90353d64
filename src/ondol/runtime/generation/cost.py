"""What a request will cost, learnt from what requests did cost: tokens, prefill, decode.

Knows no queue and no model: it is fed with finished requests and asked before the next. The cost of
a prefill is a + b·u + c·u·(cached + u/2) + d·u·k seconds, with u the prompt tokens that are not in
the prefix cache and k the other requests that decode meanwhile. Not thread-safe.

Non-negative least squares over a stream in which the past fades; a handful of features.

Starts from a prior that counts as ``strength`` observations and never quite goes, so that a feature
that has not been seen varying keeps its prior. Errors count relative to what was observed. Source:
recursive least squares with exponential forgetting (Haykin, Adaptive Filter Theory, ch. 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ondol.core.types import Message


class FadingFit:
    """``predict`` is the sum of coefficients times features; no coefficient is below zero.

    ``scale`` is the usual size of each feature, ``floor`` the least value that a relative error is
    taken of. Not thread-safe.
    """

    def __init__(
        self,
        prior: Sequence[float],
        *,
        scale: Sequence[float],
        floor: float,
        strength: float = 1.0,
        fade: float = 0.97,
    ) -> None:
        self._scale = np.asarray(scale, np.float64)
        self._fade = fade
        self._floor = floor
        start = np.asarray(prior, np.float64) * self._scale
        size = float(start.sum()) or floor
        self._ridge = strength * np.eye(len(prior)) / max(size, floor) ** 2
        self._prior = self._ridge @ start
        self._gram = self._ridge.copy()
        self._moment = self._prior.copy()
        self._coefficients = tuple(float(value) for value in prior)
        self.seen = 0

    @property
    def coefficients(self) -> tuple[float, ...]:
        return self._coefficients

    def predict(self, features: Sequence[float]) -> float:
        return sum(c * x for c, x in zip(self._coefficients, features, strict=True))

    def learn(self, features: Sequence[float], observed: float) -> None:
        """Take in one observation; values that are not finite or below zero are left out."""
        row = np.asarray(features, np.float64) / self._scale
        if not (np.isfinite(row).all() and np.isfinite(observed)) or observed < 0:
            return
        weight = 1.0 / max(observed, self._floor) ** 2
        kept = 1.0 - self._fade
        self._gram = self._fade * self._gram + kept * self._ridge + weight * np.outer(row, row)
        self._moment = self._fade * self._moment + kept * self._prior + weight * observed * row
        self._coefficients = tuple(self._solve() / self._scale)
        self.seen += 1

    def _solve(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Leave out, one at a time, the feature that would go furthest below zero."""
        kept = list(range(len(self._scale)))
        found = np.zeros(len(self._scale))
        while kept:
            part = np.linalg.solve(self._gram[np.ix_(kept, kept)], self._moment[kept])
            if part.min() >= 0:
                found[kept] = part
                break
            kept.pop(int(part.argmin()))
        return found


_TRUSTED = 3
_LEAST_SECONDS = 0.005
_FRACTION_PRIOR = 0.7
_SMOOTHING = 0.1
_SAFETY_SHARE = 0.97
_SAFETY_STEP = 0.02


@dataclass(frozen=True, slots=True)
class PromptShape:
    """A prompt as it can be sized without a tokenizer; ``wide`` counts bytes beyond one a character."""

    messages: int
    chars: int
    wide: int

    @classmethod
    def of(cls, messages: Sequence[Message]) -> PromptShape:
        chars = sum(len(message.content) for message in messages)
        size = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
        return cls(len(messages), chars, size - chars)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request is expected to need. Seconds; ``work`` is its share of the machine in all.

    ``prefill`` runs from its start to its first token; ``decode`` from there to its end;
    ``surest`` is a prefill that is seldom exceeded.
    """

    prompt_tokens: float
    uncached_tokens: float
    output_tokens: float
    prefill: float
    surest: float
    decode: float
    work: float


@dataclass(frozen=True, slots=True)
class Served:
    """What one finished request did take: true counts, seconds from start to first token and on.

    ``others`` is how many others decoded when it began, ``beside`` on average while it decoded.
    """

    shape: PromptShape
    lane: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    max_tokens: int
    prefill: float
    decode: float
    others: int
    beside: float
    expected_prefill: float


class CostModel:
    """Estimates for one generator; ``tokens_per_second`` is the prior of prefill, 0 if unknown."""

    def __init__(self, *, slots: int, tokens_per_second: float = 0.0) -> None:
        self._slots = slots
        rate = 1.0 / tokens_per_second if tokens_per_second else 0.0
        self._tokens = FadingFit(
            (12.0, 4.0, 0.27, 0.3), scale=(10, 4, 1000, 1000), floor=8.0, strength=0.3
        )
        self._prefill = FadingFit(
            (0.0, rate, 0.0, 0.0),
            scale=(0.05, 300, 150_000, 600),
            floor=_LEAST_SECONDS,
            strength=0.3,
        )
        self._step = FadingFit(
            (rate, rate / 2), scale=(1, max(1, slots - 1)), floor=1e-4, strength=0.3
        )
        self._fraction: dict[str, float] = {}
        self._safety = 1.2

    @property
    def measured(self) -> bool:
        """Whether enough has been seen to refuse anybody on its strength."""
        return self._prefill.seen >= _TRUSTED

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Seconds of a prefill: constant, per token, per token², per token and other request."""
        return self._prefill.coefficients

    def estimate(
        self,
        shape: PromptShape,
        *,
        lane: str,
        max_tokens: int,
        cached_chars: int = 0,
        others: int = 0,
    ) -> Estimate:
        """Return what a request of this shape would take if it began now beside ``others``."""
        prompt = max(1.0, self._tokens.predict(_size(shape)))
        cached = prompt * min(1.0, cached_chars / shape.chars) if shape.chars else 0.0
        uncached = max(1.0, prompt - cached)
        output = max(1.0, max_tokens * self._fraction.get(lane, _FRACTION_PRIOR))
        prefill = self._prefill.predict(_reading(uncached, cached, others))
        share = self.step(self._slots) / self._slots
        return Estimate(
            prompt_tokens=prompt,
            uncached_tokens=uncached,
            output_tokens=output,
            prefill=prefill,
            surest=prefill * self._safety,
            decode=output * self.step(others + 1),
            work=prefill + output * share,
        )

    def step(self, running: float) -> float:
        """Return the seconds between two tokens of one request while ``running`` decode."""
        return self._step.predict((1.0, max(0.0, running - 1)))

    def learn(self, served: Served) -> None:
        """Take in one request that ran to its end."""
        if served.prompt_tokens > 0:
            self._tokens.learn(_size(served.shape), served.prompt_tokens)
            uncached = max(1, served.prompt_tokens - served.cached_tokens)
            self._prefill.learn(
                _reading(uncached, served.cached_tokens, served.others), served.prefill
            )
        if served.output_tokens > 1:
            self._step.learn(
                (1.0, max(0.0, served.beside)), served.decode / (served.output_tokens - 1)
            )
        if served.max_tokens:
            past = self._fraction.get(served.lane, _FRACTION_PRIOR)
            now = min(1.0, served.output_tokens / served.max_tokens)
            self._fraction[served.lane] = past + _SMOOTHING * (now - past)
        if served.expected_prefill > _LEAST_SECONDS and self.measured:
            self._caution(served.prefill / served.expected_prefill)

    def _caution(self, ratio: float) -> None:
        """Move the safety factor towards the ratio that only three requests in a hundred exceed."""
        step = _SAFETY_SHARE if ratio > self._safety else _SAFETY_SHARE - 1.0
        self._safety = min(2.0, max(1.02, self._safety + _SAFETY_STEP * step * self._safety))


def _size(shape: PromptShape) -> tuple[float, ...]:
    return (1.0, float(shape.messages), float(shape.chars), shape.wide / 2)


def _reading(uncached: float, cached: float, others: int) -> tuple[float, ...]:
    return (1.0, uncached, uncached * (cached + uncached / 2), uncached * others)

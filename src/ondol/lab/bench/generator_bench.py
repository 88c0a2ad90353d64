"""``ondol bench generate``: prefill, decode and a second turn, through Ondol and on raw llama.cpp.

Both are asked by the same client with the same texts, in turn, so that other work on the machine
hits both alike: what differs is what Ondol adds. Lone requests give the latency, ``streams`` at
once the throughput.

The raw baseline: the very llama.cpp process that a server would start, asked directly.

Built by the same factory from the same settings, so that model, slots, threads, context and batch
are the same; what is left out is everything of Ondol's between the client and it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ondol.backends.llamacpp_generator import LlamaCppGenerator
from ondol.core.errors import BackendError
from ondol.core.settings import Settings
from ondol.core.types import OnNote
from ondol.lab.bench.load_figures import Seen
from ondol.lab.bench.load_measuring import shots_now, yardstick_of
from ondol.lab.bench.load_plan import Manner, Shot, Target, ask
from ondol.lab.bench.load_prompts import Messages, PromptMaker
from ondol.lab.bench.request_trace import Row
from ondol.lab.bench.server_child import tree_memory_mb
from ondol.lab.evaluate.statistics import percentile
from ondol.runtime.backend_factory import BackendFactory

GO_ON: Messages = [
    {"role": "assistant", "content": "1 2 3 4 5 6 7 8"},
    {"role": "user", "content": "Go on from there."},
]


class MeasuredRun(Protocol):
    """A side of the comparison: how to ask it, and its memory."""

    @property
    def target(self) -> Target: ...
    def memory_mb(self, *, peak: bool = False) -> float: ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked: tokens of a lone prompt and answer, of a stream's, and of a conversation."""

    prompt: int = 512
    answer: int = 64
    stream_prompt: int = 128
    stream_answer: int = 96
    conversation: int = 660
    streams: int = 8
    lone: int = 4
    rounds: int = 3
    seed: int = 0


@dataclass(slots=True)
class _Side:
    """What one side did, round by round."""

    target: Target
    lone: list[list[Seen]]
    streams: list[float]


class GenerateBench:
    """One comparison; ``run`` returns its JSON. Without ``raw`` there is nothing to compare with."""

    def __init__(
        self, sizes: Sizes, *, ours: MeasuredRun, raw: MeasuredRun | None, note: OnNote
    ) -> None:
        self._sizes = sizes
        self._ours = ours
        self._raw = raw
        self._note = note
        self._numbers = 0

    def run(self) -> dict[str, Any]:
        """Return the figures of both sides, ``added_ttft_ms`` and ``throughput_ratio``."""
        sizes = self._sizes
        self._note("what a word costs in tokens")
        maker = PromptMaker(yardstick_of(self._ours.target), seed=sizes.seed)
        ours = _Side(self._ours.target, [], [])
        raw = _Side(self._raw.target, [], []) if self._raw else None
        sides = [ours] if raw is None else [ours, raw]
        warm_up = self._shots(maker, 2, 64, 8)
        for side in sides:
            ask(side.target, warm_up, Manner(concurrency=2))
        for turn in range(sizes.rounds):
            order = sides if turn % 2 == 0 else sides[::-1]
            self._note(f"round {turn + 1} of {sizes.rounds}: one at a time")
            shots = self._shots(maker, sizes.lone, sizes.prompt, sizes.answer)
            for side in order:
                side.lone.append(self._done(side.target, shots, 1))
            self._note(f"round {turn + 1} of {sizes.rounds}: {sizes.streams} at once")
            shots = self._shots(maker, sizes.streams, sizes.stream_prompt, sizes.stream_answer)
            for side in order:
                side.streams.append(_rate(self._done(side.target, shots, sizes.streams)))
        self._note("a second turn")
        found = {
            "model": ours.target.model,
            "streams": sizes.streams,
            **_figures(ours),
            "second_turn": self._second_turn(maker, ours.target),
            "peak_rss_mb": self._ours.memory_mb(peak=True),
        }
        if raw is not None and self._raw is not None:
            found |= {
                "raw": {**_figures(raw), "peak_rss_mb": self._raw.memory_mb(peak=True)},
                **_compared(ours, raw),
            }
        return found

    def _shots(self, maker: PromptMaker, count: int, prompt: int, answer: int) -> list[Shot]:
        """Return shots of new texts: what was asked before is in a cache."""
        self._numbers += count
        return shots_now(maker, [Row(0.0, prompt, answer)] * count, first=self._numbers)

    def _second_turn(self, maker: PromptMaker, target: Target) -> dict[str, float]:
        """Return TTFT of a first turn over a long context and of the turn after it, in ms."""
        row = Row(0.0, self._sizes.conversation, 8)
        first, second, cached = [], [], []
        for _ in range(self._sizes.rounds):
            (shot,) = self._shots(maker, 1, row.prompt_tokens, row.output_tokens)
            (one,) = self._done(target, [shot], 1)
            (two,) = self._done(target, [Shot(0.0, row, [*shot.messages, *GO_ON])], 1)
            first.append((one.ttft or 0.0) * 1e3)
            second.append((two.ttft or 0.0) * 1e3)
            cached.append(two.cached_tokens / max(1, two.prompt_tokens))
        return {
            "context_tokens": row.prompt_tokens,
            "first_ttft_ms": percentile(first, 0.5),
            "second_ttft_ms": percentile(second, 0.5),
            "ratio": percentile(second, 0.5) / max(percentile(first, 0.5), 1e-9),
            "cached_share": percentile(cached, 0.5),
        }

    def _done(self, target: Target, shots: Sequence[Shot], concurrency: int) -> list[Seen]:
        seen = list(ask(target, shots, Manner(concurrency=concurrency)).seen)
        for one in seen:
            if one.outcome != "ok":
                raise BackendError(
                    f"{target.url} answered a request of the bench with {one.status} {one.code}",
                    hint="see the server's log",
                )
        return seen


def _rate(seen: Sequence[Seen]) -> float:
    """Return answer tokens a second of streams that began together."""
    return sum(one.completion_tokens for one in seen) / max(one.end for one in seen)


def _figures(side: _Side) -> dict[str, float]:
    lone = [one for turn in side.lone for one in turn]
    first = [one.ttft for one in lone if one.ttft is not None]
    read = [(one.prompt_tokens - one.cached_tokens) / one.ttft for one in lone if one.ttft]
    return {
        "prefill_tokens_per_second": percentile(read, 0.5),
        "decode_tokens_per_second": percentile([1 / one.tpot for one in lone if one.tpot], 0.5),
        "ttft_p50_ms": percentile(first, 0.5) * 1e3,
        "prompt_tokens": percentile([one.prompt_tokens for one in lone], 0.5),
        "streams_tokens_per_second": percentile(side.streams, 0.5),
    }


def _compared(ours: _Side, raw: _Side) -> dict[str, float]:
    """Return what Ondol adds, pair by pair: the same text asked in the same round."""
    pairs = [
        (own.ttft - plain.ttft) * 1e3
        for mine, theirs in zip(ours.lone, raw.lone, strict=True)
        for own, plain in zip(mine, theirs, strict=True)
        if own.ttft is not None and plain.ttft is not None
    ]
    ratios = [own / plain for own, plain in zip(ours.streams, raw.streams, strict=True)]
    return {
        "added_ttft_ms": percentile(pairs, 0.5),
        "throughput_ratio": percentile(ratios, 0.5),
    }


class RawChild:
    """A llama.cpp child and how to ask it."""

    def __init__(self, generator: LlamaCppGenerator) -> None:
        child = generator.child
        if child is None or child.endpoint is None:
            raise BackendError("llama.cpp has no address", hint="see its log with -v")
        self._pid = child.pid
        self.target = Target(
            child.endpoint.url,
            generator.spec.model,
            {"authorization": f"Bearer {child.endpoint.key}"},
        )

    def memory_mb(self, *, peak: bool = False) -> float:
        """Return its resident memory, now or at most."""
        return tree_memory_mb(self._pid, peak=peak)


@contextmanager
def raw_child(settings: Settings) -> Iterator[RawChild | None]:
    """Start the generator of ``settings`` without a server; ``None`` where it is not llama.cpp."""
    generator = BackendFactory(settings).generator(on_state=lambda _: None)
    try:
        yield RawChild(generator) if isinstance(generator, LlamaCppGenerator) else None
    finally:
        generator.close()

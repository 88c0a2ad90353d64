"""Small batches of like length, as ``next_batch`` cuts them, against batches of 32 as texts came.

The same encoder and the same real texts of 10 to 500 tokens, each policy in a process of its own,
turn and turn about; throughput and peak memory of each. Run:
``python benchmarks/mixed_lengths.py [--model NAME] [--form FORM] [--texts 512] [--budgets 1024,2048]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import report, table
from contestant import Contestant, Field, claim_stdout, memory, serve
from texts import english, korean, mixed

SAMPLES = {"english": english, "korean": korean, "mixed": mixed}
SHORTEST, LONGEST = 10, 500
ARRIVAL = 32


@dataclass(frozen=True)
class Text:
    """A tokenised text as the policy sees it."""

    encoded: Any
    urgent: bool = False
    arrived: float = 0.0

    @property
    def tokens(self) -> int:
        return int(self.encoded.tokens)


class Child:
    """One encoder and one policy; ``budget`` 0 is batches of 32 in the order of arrival."""

    def __init__(self) -> None:
        self._encoder: Any = None
        self._texts: list[Text] = []

    def load(
        self, *, home: str, model: str, form: str, threads: int, texts: list[str]
    ) -> Mapping[str, Any]:
        from ondol.models.library import ModelLibrary
        from ondol.models.loading import load_encoder

        files = ModelLibrary(Path(home) / "models", offline=True).files(model)
        self._encoder = load_encoder(files, form=form, threads=threads)
        encoded = self._encoder.tokenize(texts, truncate=True)
        self._texts = [Text(e) for e in encoded if SHORTEST <= e.tokens <= LONGEST]
        self._encoder.run([self._texts[0].encoded])
        lengths = sorted(text.tokens for text in self._texts)
        return {
            "form": self._encoder.spec.form,
            "texts": len(lengths),
            "tokens": sum(lengths),
            "median_tokens": lengths[len(lengths) // 2],
            **memory(reset=True),
        }

    def run(self, *, budget: int) -> Mapping[str, Any]:
        batches = padded = 0
        started = time.perf_counter()
        for batch in self._by_length(budget) if budget else self._as_they_came():
            self._encoder.run([text.encoded for text in batch])
            batches += 1
            padded += len(batch) * max(text.tokens for text in batch)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "batches": batches, "padded": padded, **memory()}

    def _as_they_came(self) -> Iterator[Sequence[Text]]:
        for at in range(0, len(self._texts), ARRIVAL):
            yield self._texts[at : at + ARRIVAL]

    def _by_length(self, budget: int) -> Iterator[Sequence[Text]]:
        from ondol.runtime.encoders.batching import Budget, next_batch

        spec = self._encoder.spec
        limit = Budget(tokens=budget, items=64, padded=spec.padded, buckets=spec.buckets)
        waiting = list(self._texts)
        while waiting:
            chosen = set(next_batch(waiting, limit))
            yield [text for i, text in enumerate(waiting) if i in chosen]
            waiting = [text for i, text in enumerate(waiting) if i not in chosen]


def main() -> None:
    if "--child" in sys.argv:
        child = Child()
        serve({"load": child.load, "run": child.run}, claim_stdout())
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="multilingual-e5-small")
    parser.add_argument("--form", default="onnx:int8")
    parser.add_argument("--sample", choices=SAMPLES, default="mixed")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--budgets", default="1024,2048")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    home = os.environ.get("ONDOL_HOME", str(Path.home() / ".local/share/ondol"))
    budgets = [0, *(int(text) for text in options.budgets.split(","))]
    asked = {
        "home": home,
        "model": options.model,
        "form": options.form,
        "threads": len(os.sched_getaffinity(0)),
        "texts": SAMPLES[options.sample](options.texts),
    }
    field = Field()
    try:
        loaded = {}
        for budget in budgets:
            child = Contestant(str(budget), [sys.executable, __file__, "--child"])
            loaded[budget] = child.call("load", **asked)
            field.enter(child)
        runs: dict[int, list[Mapping[str, Any]]] = {budget: [] for budget in budgets}
        for _ in range(options.rounds):
            for budget, child in zip(budgets, field.contestants, strict=True):
                runs[budget].append(field.call(child, "run", budget=budget))
    finally:
        field.close()
    _tell(options, budgets, loaded, runs)


def _tell(
    options: argparse.Namespace,
    budgets: Sequence[int],
    loaded: Mapping[int, Mapping[str, Any]],
    runs: Mapping[int, Sequence[Mapping[str, Any]]],
) -> None:
    count, tokens = loaded[0]["texts"], loaded[0]["tokens"]
    rate = {b: count / statistics.median(run["seconds"] for run in runs[b]) for b in budgets}
    peak = {b: max(run["peak_mb"] for run in runs[b]) for b in budgets}
    name = {0: f"arrival, {ARRIVAL} at a time"} | {b: f"by length, {b} tokens" for b in budgets[1:]}
    table(
        ("policy", "texts/s", "ratio", "batches", "padding", "peak MB", "over loaded MB"),
        [
            (
                name[b],
                f"{rate[b]:.1f}",
                f"{rate[b] / rate[0]:.2f}",
                runs[b][0]["batches"],
                f"{1 - tokens / runs[b][0]['padded']:.0%}",
                f"{peak[b]:.0f}",
                f"{peak[b] - loaded[b]['rss_mb']:.0f}",
            )
            for b in budgets
        ],
    )
    best = max(budgets[1:], key=lambda b: rate[b])
    pairs = zip(runs[0], runs[best], strict=True)
    ratios = [arrival["seconds"] / by_length["seconds"] for arrival, by_length in pairs]
    report(
        {
            "arrival_per_second": round(rate[0], 1),
            "by_length_per_second": round(rate[best], 1),
            "budget": best,
            "ratio": round(statistics.median(ratios), 3),
            "arrival_peak_mb": peak[0],
            "by_length_peak_mb": peak[best],
            "texts": count,
            "tokens": tokens,
            "median_tokens": loaded[0]["median_tokens"],
        },
        settings=vars(options),
    )


if __name__ == "__main__":
    main()

"""How an encoder is trained: every number that a run hangs on, in one frozen object.

How far a training run is, as those who show it are told; knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ondol.core.errors import InvalidInput

Method = Literal["full", "lora"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a run.

    ``layers`` are trained, counted from the last (0, or more than there are: all); word, position
    and type embeddings never are. ``rank`` is LoRA's. ``batch`` counts queries, ``negatives`` the mined passages beside each.
    ``rate`` rises over the first ``warmup`` share of the run and falls to 0 at its end. ``temperature``
    divides the cosines; a passage nearer to the query than its right one by more than ``margin``
    counts as unjudged, not as wrong. ``part_tokens`` bounds memory: how many tokens' activations are
    held at once. ``minutes`` (0: no limit) ends a run by the clock; without it, equal settings give
    equal weights. ``precision`` is that of products in training; ``auto`` takes bfloat16 where the
    processor multiplies it.
    """

    method: Method = "full"
    layers: int = 6
    rank: int = 16
    epochs: float = 2.0
    batch: int = 32
    negatives: int = 1
    rate: float = 5e-5
    warmup: float = 0.1
    temperature: float = 0.02
    margin: float = 0.1
    decay: float = 0.01
    clip: float = 1.0
    query_tokens: int = 128
    document_tokens: int = 192
    part_tokens: int = 12_288
    checkpoint_steps: int = 20
    precision: Precision = "auto"
    threads: int = 0
    seed: int = 0
    minutes: float = 0.0

    def check(self) -> None:
        """Raise ``InvalidInput`` for a number that cannot be followed."""
        least: dict[str, tuple[float, float]] = {
            "layers": (self.layers, 0),
            "rank": (self.rank, 1),
            "batch": (self.batch, 2),
            "negatives": (self.negatives, 0),
            "query_tokens": (self.query_tokens, 8),
            "document_tokens": (self.document_tokens, 8),
            "part_tokens": (self.part_tokens, 1),
            "checkpoint_steps": (self.checkpoint_steps, 1),
            "minutes": (self.minutes, 0),
        }
        for name, (value, bound) in least.items():
            if value < bound:
                raise _wrong(name, value, f"it must be at least {bound:g}")
        above = {"epochs": self.epochs, "rate": self.rate, "temperature": self.temperature}
        for name, value in above.items():
            if value <= 0:
                raise _wrong(name, value, "it must be above 0")

    def first_layer(self, layers: int) -> int:
        """Return the index of the lowest layer that is trained, of ``layers``."""
        return max(0, layers - self.layers) if self.layers else 0


def _wrong(name: str, value: float, rule: str) -> InvalidInput:
    return InvalidInput(f"{name} is {value:g}; {rule}", hint="see `ondol models finetune --help`")


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """After ``step`` of ``steps``: the mean loss of the last steps, seconds spent and to come."""

    step: int
    steps: int
    loss: float
    seconds: float
    seconds_left: float

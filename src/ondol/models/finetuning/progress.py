"""How far a training run is, as those who show it are told; knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """After ``step`` of ``steps``: the mean loss of the last steps, seconds spent and to come."""

    step: int
    steps: int
    loss: float
    seconds: float
    seconds_left: float

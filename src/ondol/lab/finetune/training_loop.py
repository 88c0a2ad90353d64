"""The loop of a training run: steps, learning rate, checkpoints, progress, the end by the clock.

Knows no data: a *lesson* computes gradients. Decides nothing by chance that the seed does not fix. A
run that was killed goes on from its last checkpoint and ends as it would have.

What a broken run goes on from: the learned tensors, the optimiser's moments, the step.

One file, replaced in one step, so that a kill at any moment leaves a whole one. Read without running
any code from it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ondol.core.clock import Clock
from ondol.core.errors import ModelError
from ondol.lab.finetune.network import TrainableEncoder
from ondol.lab.finetune.recipe import Recipe, TrainingProgress


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """After ``step`` steps and ``seconds`` of training; ``identity`` says of which run."""

    identity: str
    step: int
    seconds: float
    losses: list[float]
    trained: dict[str, torch.Tensor]
    optimiser: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace ``path``; it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        torch.save(
            {
                "identity": checkpoint.identity,
                "step": checkpoint.step,
                "seconds": checkpoint.seconds,
                "losses": checkpoint.losses,
                "trained": {n: t.detach() for n, t in checkpoint.trained.items()},
                "optimiser": checkpoint.optimiser,
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_checkpoint(path: Path, *, identity: str) -> Checkpoint | None:
    """Return the checkpoint of the run ``identity``; ``None`` where there is none or it is damaged."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        found = Checkpoint(**kept)
    except Exception:  # torch raises errors of many kinds for a file that is not its own
        return None
    return found if found.identity == identity else None


_RECENT = 20


class Lesson(Protocol):
    """Computes one step's gradients. ``steps_per_epoch`` says how many see all examples once."""

    steps_per_epoch: int

    def backward(self, step: int) -> float: ...


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """How a run went: steps done of those planned, seconds of training, losses at both ends.

    ``resumed`` is the step it went on from, 0 where it began.
    """

    steps: int
    planned: int
    seconds: float
    first_loss: float
    last_loss: float
    resumed: int


class Trainer:
    """Trains ``network`` by ``lesson``; ``checkpoint`` is the file that keeps the state."""

    def __init__(
        self,
        network: TrainableEncoder,
        lesson: Lesson,
        recipe: Recipe,
        *,
        checkpoint: Path,
        identity: str,
        clock: Clock,
        told: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self._network = network
        self._lesson = lesson
        self._recipe = recipe
        self._path = checkpoint
        self._identity = identity
        self._clock = clock
        self._told = told
        self._optimiser = torch.optim.AdamW(
            list(network.trained.values()), lr=recipe.rate, weight_decay=recipe.decay
        )
        self._losses: list[float] = []
        self._before = 0.0

    def run(self) -> TrainingReport:
        """Train to the end of the epochs or of the minutes, from the last checkpoint on.

        Raises ``ModelError`` when the loss is no longer a number.
        """
        recipe = self._recipe
        planned = max(1, math.ceil(recipe.epochs * self._lesson.steps_per_epoch))
        started = resumed = self._resume()
        begun = self._clock.monotonic()
        step = started
        while step < planned:
            seconds = self._before + self._clock.monotonic() - begun
            progress = step / planned
            if recipe.minutes:
                progress = max(progress, seconds / (60 * recipe.minutes))
            if progress >= 1:
                break
            self._losses.append(self._step(step, progress))
            step += 1
            seconds = self._before + self._clock.monotonic() - begun
            if step % recipe.checkpoint_steps == 0:
                self._save(step, seconds)
            self._tell(step, planned, seconds, done_here=step - started)
        seconds = self._before + self._clock.monotonic() - begun
        if step != started or not started:
            self._save(step, seconds)
        return TrainingReport(
            steps=step,
            planned=planned,
            seconds=seconds,
            first_loss=_mean(self._losses[:_RECENT]),
            last_loss=_mean(self._losses[-_RECENT:]),
            resumed=resumed,
        )

    def _step(self, step: int, progress: float) -> float:
        self._optimiser.zero_grad()
        loss = self._lesson.backward(step)
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} after {step} steps",
                hint="lower --rate; the last checkpoint is kept",
            )
        parameters = list(self._network.trained.values())
        torch.nn.utils.clip_grad_norm_(parameters, self._recipe.clip)
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.rate * rate_share(progress, warmup=self._recipe.warmup)
        self._optimiser.step()
        return loss

    def _resume(self) -> int:
        found = read_checkpoint(self._path, identity=self._identity)
        if found is None:
            return 0
        self._network.load(found.trained)
        self._optimiser.load_state_dict(found.optimiser)
        self._losses, self._before = list(found.losses), found.seconds
        return found.step

    def _save(self, step: int, seconds: float) -> None:
        save_checkpoint(
            self._path,
            Checkpoint(
                identity=self._identity,
                step=step,
                seconds=seconds,
                losses=self._losses,
                trained=self._network.trained,
                optimiser=self._optimiser.state_dict(),
            ),
        )

    def _tell(self, step: int, planned: int, seconds: float, *, done_here: int) -> None:
        if self._told is None:
            return
        each = (seconds - self._before) / done_here
        left = each * (planned - step)
        if self._recipe.minutes:
            left = min(left, 60 * self._recipe.minutes - seconds)
        self._told(
            TrainingProgress(
                step=step,
                steps=planned,
                loss=_mean(self._losses[-_RECENT:]),
                seconds=seconds,
                seconds_left=max(0.0, left),
            )
        )


def prepare_torch(recipe: Recipe) -> None:
    """Set what is one for the whole process: the threads. A seed is nowhere drawn from globally."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)


def rate_share(progress: float, *, warmup: float) -> float:
    """Return the share of the learning rate at ``progress`` (0 to 1): up in a line, then down to 0."""
    if progress < warmup:
        return (progress + 0.01) / (warmup + 0.01)
    return max(0.0, (1 - progress) / (1 - warmup)) if warmup < 1 else 0.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0

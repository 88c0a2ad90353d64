"""What a broken run goes on from: the learned tensors, the optimiser's moments, the step.

One file, replaced in one step, so that a kill at any moment leaves a whole one. Read without running
any code from it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


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

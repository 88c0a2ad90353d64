"""What one encoder in service says of itself: form, why, memory, load, fidelity, batch policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class SlotState(StrEnum):
    """``cold`` has nothing loaded and loads when asked; ``draining`` is on its way out for good."""

    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """``resident_bytes`` is what the process grew by at the load; ``exact`` when nothing else loaded.

    ``weights_bytes`` is the size of the form's file.
    """

    resident_bytes: int | None = None
    exact: bool = False
    weights_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How batches are formed: tokens and items at most, and the threads that compute them."""

    token_budget: int
    max_batch: int
    threads: int


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """One encoder in service. ``reason`` says why this form; ``fallback`` why not the chosen one."""

    purpose: str
    state: SlotState
    model: str = ""
    form: str = ""
    runtime: str = ""
    device: str = ""
    reason: str = ""
    fallback: str = ""
    error: str = ""
    load_seconds: float = 0.0
    loads: int = 0
    retiring: int = 0
    keep_alive: float = 0.0
    idle_seconds: float = 0.0
    memory: MemoryInfo = field(default_factory=MemoryInfo)
    batch: BatchPolicy | None = None
    fidelity: Mapping[str, float] = field(default_factory=dict)

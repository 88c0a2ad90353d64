"""How short of resources the machine is, as admission needs to know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["none", "high", "critical"]


@dataclass(frozen=True, slots=True)
class Pressure:
    """``concurrency`` is the share of slots in use; ``shed`` closes the lane ``batch``."""

    level: Level = "none"
    concurrency: float = 1.0
    shed: bool = False
    reasons: tuple[str, ...] = ()
    retry_after: float = 10.0


NO_PRESSURE = Pressure()

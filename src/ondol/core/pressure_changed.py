"""The event that the machine became shorter of resources, or less so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """What admission does from now on: ``concurrency`` is the share of slots in use, ``shed``
    closes the lane ``batch``; ``reasons`` name what is short, empty when it is over.
    """

    level: Literal["none", "high", "critical"]
    before: Literal["none", "high", "critical"]
    concurrency: float
    shed: bool
    reasons: tuple[str, ...] = ()

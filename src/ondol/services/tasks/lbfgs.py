"""Minimises a smooth function of many numbers: limited-memory BFGS (Nocedal 1980) with Armijo steps.

Enough for the convex losses of small classifiers. Deterministic; knows nothing of what it minimises.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Objective = Callable[[Vector], tuple[float, Vector]]

_HISTORY = 10
_HALVINGS = 30
_ENOUGH = 1e-4


def minimised(
    objective: Objective, start: Vector, *, rounds: int = 200, tolerance: float = 1e-5
) -> Vector:
    """Return where ``objective`` (value and gradient) is least, from ``start``, after ``rounds``.

    Ends sooner where the value falls by less than ``tolerance`` of itself.
    """
    place = start.copy()
    value, gradient = objective(place)
    steps: list[tuple[Vector, Vector, float]] = []
    for _ in range(rounds):
        direction = -_scaled(gradient, steps)
        slope = float(direction @ gradient)
        if slope >= 0:
            steps.clear()
            direction, slope = -gradient, -float(gradient @ gradient)
        first = 1.0 if steps else min(1.0, 1.0 / (float(np.abs(gradient).sum()) or 1.0))
        found = _descended(objective, place, value, direction, slope, first)
        if found is None:
            break
        new_place, new_value, new_gradient = found
        moved, turned = new_place - place, new_gradient - gradient
        curve = float(moved @ turned)
        if curve > 1e-12:
            steps = [*steps[-(_HISTORY - 1) :], (moved, turned, 1.0 / curve)]
        fell = value - new_value
        place, value, gradient = new_place, new_value, new_gradient
        if fell <= tolerance * max(abs(value), 1e-12):
            break
    return place


def _scaled(gradient: Vector, steps: list[tuple[Vector, Vector, float]]) -> Vector:
    """Return the gradient times the estimated inverse Hessian (two-loop recursion)."""
    rest = gradient.copy()
    shares: list[float] = []
    for moved, turned, inverse in reversed(steps):
        share = inverse * float(moved @ rest)
        shares.append(share)
        rest -= share * turned
    if steps:
        moved, turned, inverse = steps[-1]
        rest /= inverse * float(turned @ turned)
    for (moved, turned, inverse), share in zip(steps, reversed(shares), strict=True):
        rest += (share - inverse * float(turned @ rest)) * moved
    return rest


def _descended(
    objective: Objective,
    place: Vector,
    value: float,
    direction: Vector,
    slope: float,
    length: float,
) -> tuple[Vector, float, Vector] | None:
    for _ in range(_HALVINGS):
        candidate = place + length * direction
        new_value, new_gradient = objective(candidate)
        if new_value <= value + _ENOUGH * length * slope:
            return candidate, new_value, new_gradient
        length *= 0.5
    return None

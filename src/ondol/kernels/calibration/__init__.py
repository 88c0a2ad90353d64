"""Texts of our own, Korean and English, and what activations look like on them.

The texts are written for this purpose: every length up to a long paragraph, many domains, nothing
of anybody's documents. Activations are sampled by a runtime's own graph; fitting is ``ranges``.
"""

from __future__ import annotations

from functools import cache
from importlib import resources


def calibration_texts(*, korean: bool = True) -> tuple[str, ...]:
    """Return the texts, in the order of the file; those in English only where ``korean`` is false."""
    texts = _texts()
    return texts if korean else tuple(text for text in texts if text.isascii())


@cache
def _texts() -> tuple[str, ...]:
    text = resources.files("ondol.kernels.calibration").joinpath("texts.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line.strip())

"""Texts of our own, Korean and English, to see an encoder's activations on.

The texts are written for this purpose: every length up to a long paragraph, many domains, nothing
of anybody's documents. They come as a model meets them: with its prefixes, or as pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

LONGEST = 256
"""Tokens of a text that are worth running; longer inputs look no different channel by channel."""


def calibration_texts(*, korean: bool = True) -> tuple[str, ...]:
    """Return the texts, in the order of the file; those in English only where ``korean`` is false."""
    texts = _texts()
    return texts if korean else tuple(text for text in texts if text.isascii())


def calibration_inputs(
    *, pairs: bool = False, prefixes: Sequence[str] = ("",), korean: bool = True
) -> list[str | tuple[str, str]]:
    """Return our texts to be tokenised: with ``prefixes`` in turn, or as ``pairs`` of texts."""
    texts = calibration_texts(korean=korean)
    return [
        (texts[i // 2], text) if pairs else prefixes[i % len(prefixes)] + text
        for i, text in enumerate(texts)
    ]


@cache
def _texts() -> tuple[str, ...]:
    text = resources.files("ondol.kernels.calibration").joinpath("texts.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line.strip())

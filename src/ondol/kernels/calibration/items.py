"""The calibration texts as a model meets them: with its prefixes, or as pairs."""

from __future__ import annotations

from collections.abc import Sequence

from ondol.kernels.calibration import calibration_texts

LONGEST = 256
"""Tokens of a text that are worth running; longer inputs look no different channel by channel."""


def calibration_inputs(
    *, pairs: bool = False, prefixes: Sequence[str] = ("",), korean: bool = True
) -> list[str | tuple[str, str]]:
    """Return our texts to be tokenised: with ``prefixes`` in turn, or as ``pairs`` of texts."""
    texts = calibration_texts(korean=korean)
    return [
        (texts[i // 2], text) if pairs else prefixes[i % len(prefixes)] + text
        for i, text in enumerate(texts)
    ]

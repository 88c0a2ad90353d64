"""The calibration texts as a model meets them: tokenised, with its prefixes, or as pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ondol.backends.tokenizer import TextTokenizer
from ondol.core.types import Encoded, Pair
from ondol.models.calibration import calibration_texts

_LONGEST = 256
"""Tokens of a text that are run; longer inputs look no different channel by channel."""


def calibration_items(
    tokenizer: TextTokenizer, *, pairs: bool, prefixes: Sequence[str] = ("",), korean: bool = True
) -> Iterator[Encoded]:
    """Yield our texts as a model will meet them: with its ``prefixes`` in turn, or as ``pairs``."""
    texts = calibration_texts(korean=korean)
    inputs: list[str | Pair] = [
        Pair(texts[i // 2], text) if pairs else prefixes[i % len(prefixes)] + text
        for i, text in enumerate(texts)
    ]
    for item in tokenizer.tokenize(inputs, truncate=True):
        if isinstance(item, Encoded):
            yield Encoded(ids=item.ids[:_LONGEST], type_ids=item.type_ids[:_LONGEST])

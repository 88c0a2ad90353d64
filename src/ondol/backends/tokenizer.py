"""Texts and pairs to token ids, and token ids to padded arrays, as every encoder here needs them.

Owns one ``tokenizer.json``. An item that cannot be tokenised, or is too long, fails alone and in
its place. Knows no model library. Source: tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ondol.core.errors import InvalidInput, OndolError, TextTooLong
from ondol.core.types import Encoded, Pair

IntMatrix = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch as matrices ``(items, longest)``: ids, 1 for a token and 0 for padding, segments."""

    ids: IntMatrix
    mask: IntMatrix
    types: IntMatrix


class TextTokenizer:
    """Tokenises for ``model``, whose inputs have at most ``max_tokens``.

    Raises what the tokenizers library raises when the file is damaged.
    """

    def __init__(self, path: Path, *, model: str, max_tokens: int) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocabulary: int = self._tokenizer.get_vocab_size()
        self._pad_id = _pad_id(self._tokenizer)

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        """Tokenise each item alone; see ``backends.base.Encoder``."""
        inputs: list[Any] = [(i.query, i.document) if isinstance(i, Pair) else i for i in items]
        try:
            encodings: list[Any] = self._tokenizer.encode_batch_fast(inputs)
        except Exception:
            encodings = [self._encode_alone(i) for i in inputs]
        return [
            e if isinstance(e, OndolError) else self._fit(e.ids, e.type_ids, truncate=truncate)
            for e in encodings
        ]

    def pad(
        self, batch: Sequence[Encoded], *, dtype: Any, length: int = 0, rows: int = 0
    ) -> Padded:
        """Return ``batch`` padded on the right, to at least ``length`` tokens and ``rows`` rows.

        A row beyond the batch is one padding token that counts, so that nothing divides by zero.
        """
        longest = max(length, *(item.tokens for item in batch))
        shape = (max(rows, len(batch)), longest)
        ids = np.full(shape, self._pad_id, dtype=dtype)
        mask = np.zeros(shape, dtype=dtype)
        types = np.zeros(shape, dtype=dtype)
        mask[len(batch) :, 0] = 1
        for row, item in enumerate(batch):
            ids[row, : item.tokens] = item.ids
            mask[row, : item.tokens] = 1
            types[row, : item.tokens] = item.type_ids
        return Padded(ids=ids, mask=mask, types=types)

    def _encode_alone(self, item: Any) -> Any:
        try:
            return (
                self._tokenizer.encode(*item)
                if isinstance(item, tuple)
                else self._tokenizer.encode(item)
            )
        except Exception as error:
            return InvalidInput(
                f"the text could not be tokenised: {error}",
                hint="send valid Unicode text without lone surrogates",
            )

    def _fit(self, ids: list[int], type_ids: list[int], *, truncate: bool) -> Encoded | TextTooLong:
        limit = self._max_tokens
        if len(ids) <= limit:
            return Encoded(ids=ids, type_ids=type_ids)
        first = sum(1 for t in type_ids if t == 0) if type_ids[-1] else 0
        if not truncate or first >= limit - 1:
            return TextTooLong(
                f"the text has {len(ids)} tokens, {self._model} takes {limit}",
                hint="shorten or chunk the text, or send truncate=true to cut it",
            )
        return Encoded(
            ids=[*ids[: limit - 1], ids[-1]], type_ids=[*type_ids[: limit - 1], type_ids[-1]]
        )


def _pad_id(tokenizer: Tokenizer) -> int:
    for token in ("<pad>", "[PAD]"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    return 0

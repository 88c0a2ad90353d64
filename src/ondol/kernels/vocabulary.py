"""Cuts a multilingual Unigram vocabulary down to the scripts that are read here.

Owns the rule for which pieces stay, and the same cut through a ``tokenizer.json`` and through the
word table of its encoder. A text all of whose characters are of kept scripts keeps its
segmentation exactly, because every piece it could use is kept; characters of other scripts fall
back to pieces of one character. Pure but for the file it writes; the full files stay as they are.
Scripts are ranges of Unicode blocks (https://www.unicode.org/Public/UCD/latest/ucd/Blocks.txt);
hanja are the ideographs of KS X 1001, the Korean standard set, which Python knows as ``euc_kr``.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import BertWeights, Matrix, Q4Matrix
from ondol.kernels.kernel_error import KernelError

Ids = NDArray[np.int64]
Script = Literal[
    "common", "hangul", "hanja", "latin", "latin-extended", "greek", "cyrillic", "kana", "han"
]

DEFAULT_SCRIPTS: tuple[Script, ...] = ("common", "hangul", "hanja", "latin")
"""What Korean and English texts are written in; ``latin`` is A to Z."""

_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF)),
    "latin": ((0x41, 0x5A), (0x61, 0x7A)),
    "latin-extended": ((0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF)),
    "han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
}

_SPACE = "▁"
"""How SentencePiece writes a blank (U+2581)."""
_BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, slots=True)
class Trimmed:
    """An encoder's weights after the cut, its tokenizer's file, and the full ids that stayed."""

    weights: BertWeights
    tokenizer: Path
    kept: Ids


def trim(
    weights: BertWeights,
    tokenizer: Path,
    *,
    target: Path,
    scripts: Sequence[Script] = DEFAULT_SCRIPTS,
    corpus: Iterable[str] = (),
) -> Trimmed:
    """Cut ``weights`` and write the tokenizer that goes with them to ``target``.

    Kept are the pieces of ``scripts`` and those that occur in the texts of ``corpus``. Raises
    ``KernelError`` when the tokenizer is no Unigram or the table is smaller than its vocabulary.
    """
    settings = read_tokenizer(tokenizer)
    kept = kept_pieces(settings, scripts=scripts, used=used_pieces(tokenizer, corpus))
    cut = trim_weights(weights, kept)
    trim_tokenizer(settings, kept, target=target)
    return Trimmed(weights=cut, tokenizer=target, kept=kept)


def read_tokenizer(path: Path) -> dict[str, Any]:
    """Return a ``tokenizer.json`` as it is. Raises ``KernelError`` when it holds no Unigram."""
    try:
        settings = json.loads(path.read_text("utf-8"))
        kind, pieces = settings["model"]["type"], settings["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KernelError(
            f"{path.name} is no tokenizer: {error!r}",
            hint="delete the file and pull the model again",
        ) from error
    if kind != "Unigram" or not isinstance(pieces, list):
        raise KernelError(
            f"{path.name} holds a {kind} vocabulary; only a Unigram one can be trimmed",
            hint="use the form without +trimmed",
        )
    return dict(settings)


def kept_pieces(
    settings: dict[str, Any],
    *,
    scripts: Sequence[Script] = DEFAULT_SCRIPTS,
    used: Iterable[int] = (),
) -> Ids:
    """Return the ids of the pieces to keep, ascending.

    Kept are special tokens, bytes, every piece of one character (of whatever script: they are what
    the others fall back to), every piece whose characters are all of ``scripts``, and ``used``.
    """
    vocabulary = [piece for piece, _ in settings["model"]["vocab"]]
    special = {token["content"] for token in settings.get("added_tokens") or ()}
    belongs = script_test(scripts)
    kept = set(used) | _special_ids(settings)
    for index, piece in enumerate(vocabulary):
        letters = piece.removeprefix(_SPACE)
        if (
            len(letters) <= 1
            or piece in special
            or piece in _BYTE_PIECES
            or all(map(belongs, letters.replace(_SPACE, "")))
        ):
            kept.add(index)
    return np.array(sorted(kept), np.int64)


def used_pieces(tokenizer: Path, texts: Iterable[str]) -> set[int]:
    """Return the ids of the pieces that ``texts`` are cut into by the full tokenizer."""
    from tokenizers import Tokenizer

    used: set[int] = set()
    full: Any = None
    for text in texts:
        if full is None:
            full = Tokenizer.from_file(str(tokenizer))
            full.no_truncation()
        used.update(full.encode(text, add_special_tokens=False).ids)
    return used


def trim_tokenizer(settings: dict[str, Any], kept: Ids, *, target: Path) -> None:
    """Write the tokenizer with only the pieces ``kept``, numbered anew in the same order.

    Raises ``KernelError`` when ``kept`` lacks a special token of the tokenizer.
    """
    places = {int(old): new for new, old in enumerate(kept)}
    model = settings["model"]
    vocabulary = model["vocab"]
    try:
        trimmed = {
            **settings,
            "model": {
                **model,
                "vocab": [vocabulary[old] for old in places if old < len(vocabulary)],
                "unk_id": None if model.get("unk_id") is None else places[model["unk_id"]],
            },
            "added_tokens": [
                {**token, "id": places[token["id"]]} for token in settings.get("added_tokens") or ()
            ],
            "post_processor": _renumbered(settings.get("post_processor"), places),
            "padding": _renumbered(settings.get("padding"), places),
        }
    except KeyError as error:
        raise KernelError(
            f"token {error} is named by the tokenizer but was not kept",
            hint="keep what kept_pieces returns, and more if need be",
        ) from None
    _write(json.dumps(trimmed, ensure_ascii=False, separators=(",", ":")), target)


def trim_weights(weights: BertWeights, kept: Ids) -> BertWeights:
    """Return a view of ``weights`` whose word table has only the rows ``kept``, in that order.

    Raises ``KernelError`` when an id lies outside the table.
    """
    if kept.size == 0 or kept[0] < 0 or kept[-1] >= weights.shape.vocab:
        raise KernelError(
            f"the pieces to keep do not lie in a table of {weights.shape.vocab} rows",
            hint="use the tokenizer that the model came with",
        )

    def matrix(name: str) -> Matrix:
        full = weights.matrix(name)
        if name != "emb.word":
            return full
        if isinstance(full, Q4Matrix):
            return Q4Matrix(packed=full.packed[kept], scales=full.scales[kept])
        return full[kept]

    return replace(weights, shape=replace(weights.shape, vocab=len(kept)), matrix=matrix)


def _special_ids(settings: dict[str, Any]) -> set[int]:
    ids = {int(token["id"]) for token in settings.get("added_tokens") or ()}
    unknown = settings["model"].get("unk_id")
    return ids if unknown is None else ids | {int(unknown)}


def _renumbered(part: Any, places: dict[int, int]) -> Any:
    """Return a post-processor or padding section with its token ids replaced.

    Ids stand under ``ids`` (templates) and ``pad_id``, and second in ``sep`` and ``cls``.
    """
    if isinstance(part, list):
        return [_renumbered(item, places) for item in part]
    if not isinstance(part, dict):
        return part
    changed: dict[str, Any] = {}
    for key, value in part.items():
        if key == "ids":
            changed[key] = [places[old] for old in value]
        elif key == "pad_id":
            changed[key] = places[value]
        elif key in {"sep", "cls"} and isinstance(value, list):
            changed[key] = [value[0], places[value[1]]]
        else:
            changed[key] = _renumbered(value, places)
    return changed


def _write(text: str, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def script_test(scripts: Sequence[Script]) -> Callable[[str], bool]:
    """Return a test whether one character is of one of ``scripts``."""

    @cache
    def belongs(character: str) -> bool:
        return any(_is_of(character, script) for script in scripts)

    return belongs


def _is_of(character: str, script: Script) -> bool:
    if script == "common":
        return _is_common(character)
    if script == "hanja":
        return _is_of(character, "han") and _in_korean_standard(character)
    point = ord(character)
    return any(first <= point <= last for first, last in _RANGES[script])


def _is_common(character: str) -> bool:
    """Whether it is a digit 0 to 9, punctuation, a space, a symbol, or a sign that joins them."""
    category = unicodedata.category(character)
    if category == "Nd":
        return character.isascii()
    return category[0] in "NPSZ" or category == "Cf" or character in "\ufe0e\ufe0f"


def _in_korean_standard(character: str) -> bool:
    try:
        character.encode("euc_kr")
    except UnicodeEncodeError:
        return False
    return True

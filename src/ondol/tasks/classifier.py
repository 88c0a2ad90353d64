"""A light classifier over vectors that are already there: logistic regression beside character n-grams.

Owns the weights and their file. ``predict`` is two matrix products and a look-up, thousands of texts a
second; probabilities are calibrated by a temperature (Guo et al. 2017). It runs without vectors too,
by the n-grams alone, which is less certain. Knows no model library: an ``.npz`` without pickles.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import InvalidInput, NotFound
from ondol.core.types import FloatMatrix
from ondol.language.char_ngrams import Grams, hashed_grams

Floats = NDArray[np.float64]

_FORMAT = "ondol-classifier-1"
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Head:
    """One set of weights. ``dense`` (dimensions, labels) is empty where vectors play no part."""

    dense: FloatMatrix
    grams: FloatMatrix
    bias: FloatMatrix
    temperature: float


@dataclass(frozen=True, slots=True)
class Classifier:
    """Labels texts from their vectors and letters.

    ``mean`` and ``scale`` (dimensions,) standardise the vectors of ``embedder``. ``about`` says what
    it was trained on, under which licence, and how well it did. ``seen`` marks the texts it was
    trained on by 32 bits of their hashes, sorted; empty where that is not known.
    """

    labels: tuple[str, ...]
    embedder: str
    mean: FloatMatrix
    scale: FloatMatrix
    full: Head
    words: Head
    bits: int
    orders: tuple[int, ...]
    about: str = ""
    seen: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))

    def fits(self, embedder: str, dimensions: int) -> bool:
        """Whether vectors of ``embedder`` mean what they meant in training."""
        return embedder == self.embedder and dimensions == len(self.mean)

    def predict(self, texts: Sequence[str], vectors: FloatMatrix | None) -> Floats:
        """Return calibrated probabilities, shape ``(texts, labels)``; rows sum to 1.

        ``vectors`` are L2-normalised rows of ``embedder`` for ``texts``, or ``None``: then the n-grams
        decide alone.
        """
        if not texts:
            return np.zeros((0, len(self.labels)))
        grams = hashed_grams(texts, bits=self.bits, orders=self.orders)
        if vectors is None:
            return softmax(logits(self.words, None, grams), self.words.temperature)
        rows = (vectors - self.mean) * self.scale
        return softmax(logits(self.full, rows, grams), self.full.temperature)

    def save(self, path: Path) -> None:
        """Write the weights to ``path``, half precision for the n-grams."""
        heads = {
            f"{name}_{part}": getattr(head, part).astype(np.float16 if part == "grams" else "<f4")
            for name, head in (("full", self.full), ("words", self.words))
            for part in ("dense", "grams", "bias")
        }
        note = {
            "format": _FORMAT,
            "labels": self.labels,
            "embedder": self.embedder,
            "bits": self.bits,
            "orders": self.orders,
            "temperatures": [self.full.temperature, self.words.temperature],
            "about": self.about,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                note=np.frombuffer(json.dumps(note, ensure_ascii=False).encode(), dtype=np.uint8),
                mean=self.mean.astype("<f4"),
                scale=self.scale.astype("<f4"),
                seen=self.seen.astype("<u4"),
                **heads,
            )


def load_classifier(path: Path) -> Classifier:
    """Read what ``save`` wrote; raises ``NotFound`` or ``InvalidInput`` naming the file."""
    if not path.is_file():
        raise NotFound(f"there is no classifier {path}", hint="train one with `ondol task train`")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES:,} bytes")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return _read(data)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InvalidInput(
            f"{path} is not a classifier of ours: {error}", hint="train it again", param=str(path)
        ) from None


def _read(data: Any) -> Classifier:
    note = json.loads(data["note"].tobytes())
    if note["format"] != _FORMAT:
        raise ValueError(f"its format is {note['format']!r}, this version reads {_FORMAT!r}")
    heads = [
        Head(
            dense=data[f"{name}_dense"].astype(np.float32),
            grams=data[f"{name}_grams"].astype(np.float32),
            bias=data[f"{name}_bias"].astype(np.float32),
            temperature=float(temperature),
        )
        for name, temperature in zip(("full", "words"), note["temperatures"], strict=True)
    ]
    made = Classifier(
        labels=tuple(str(label) for label in note["labels"]),
        embedder=str(note["embedder"]),
        mean=data["mean"].astype(np.float32),
        scale=data["scale"].astype(np.float32),
        full=heads[0],
        words=heads[1],
        bits=int(note["bits"]),
        orders=tuple(int(order) for order in note["orders"]),
        about=str(note["about"]),
        seen=_seen(data),
    )
    _check_shapes(made)
    return made


def _seen(data: Any) -> NDArray[np.uint32]:
    """Return the marks of a file; files before there were marks have none."""
    if "seen" not in data.files:
        return np.zeros(0, dtype=np.uint32)
    return np.asarray(data["seen"].astype(np.uint32).reshape(-1))


def _check_shapes(made: Classifier) -> None:
    wide = len(made.labels)
    expected = {
        "full.dense": (made.full.dense.shape, (len(made.mean), wide)),
        "full.grams": (made.full.grams.shape, (2**made.bits, wide)),
        "words.grams": (made.words.grams.shape, (2**made.bits, wide)),
        "full.bias": (made.full.bias.shape, (wide,)),
        "words.bias": (made.words.bias.shape, (wide,)),
        "scale": (made.scale.shape, made.mean.shape),
    }
    for name, (shape, wanted) in expected.items():
        if shape != wanted:
            raise ValueError(f"{name} has the shape {shape}, not {wanted}")


def logits(head: Head, rows: FloatMatrix | None, grams: Grams) -> Floats:
    """Return the raw scores of ``grams.texts`` texts; ``rows`` are standardised vectors."""
    wide = len(head.bias)
    found = np.tile(head.bias.astype(np.float64), (grams.texts, 1))
    if rows is not None:
        found += rows @ head.dense
    for label in range(wide):
        weights = head.grams[grams.features, label]
        sums = np.bincount(grams.rows, weights=weights, minlength=grams.texts)
        found[:, label] += sums[: grams.texts] * grams.scale
    return found


def softmax(scores: Floats, temperature: float) -> Floats:
    """Return probabilities of ``scores`` (texts, labels) at ``temperature``."""
    shifted = scores / temperature
    shifted -= shifted.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)

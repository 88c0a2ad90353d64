"""Seeded samples of the shared data's real texts, 5 to 500 tokens, read in place.

``english(n)``, ``korean(n)`` and ``mixed(n)`` return the same ``n`` texts on every machine; asking
for more than the data holds begins anew with the same texts, each marked by its round. Passages,
questions and reviews are mixed, in an order that is shuffled once.
"""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

from common import data_set

_ENGLISH = (
    ("en_scifact_subset", "corpus.jsonl", 1),
    ("en_xquad", "corpus.jsonl", 1),
    ("en_scifact_subset", "queries.jsonl", 2),
    ("en_reviews_zomato", "reviews.jsonl", 2),
    ("en_sentences_restaurant", "reviews.jsonl", 2),
)
_KOREAN = (
    ("ko_korquad", "corpus.jsonl", 2),
    ("ko_law_statutes", "corpus.jsonl", 2),
    ("ko_korquad", "queries.jsonl", 2),
    ("ko_reviews_yogiyo", "reviews.jsonl", 2),
)
_EIGHTHS = 8


def english(count: int, *, seed: int = 0) -> list[str]:
    """Return ``count`` English texts: abstracts, passages, questions, reviews, sentences."""
    return _sample(_ENGLISH, count, seed)


def korean(count: int, *, seed: int = 0) -> list[str]:
    """Return ``count`` Korean texts: passages, statutes, questions, reviews."""
    return _sample(_KOREAN, count, seed)


def mixed(count: int, *, seed: int = 0) -> list[str]:
    """Return ``count`` texts, half English and half Korean, shuffled together."""
    texts = english(count - count // 2, seed=seed) + korean(count // 2, seed=seed)
    random.Random(seed).shuffle(texts)
    return texts


def _sample(parts: tuple[tuple[str, str, int], ...], count: int, seed: int) -> list[str]:
    """Return ``count`` texts in the parts' shares (in eighths); the last part makes up the rest."""
    texts: list[str] = []
    for index, (folder, name, eighths) in enumerate(parts):
        last = index == len(parts) - 1
        wanted = count - len(texts) if last else count * eighths // _EIGHTHS
        texts += _pick(_texts(folder, name), wanted, seed + index)
    random.Random(seed).shuffle(texts)
    return texts


def _pick(pool: tuple[str, ...], count: int, seed: int) -> list[str]:
    order = random.Random(seed).sample(range(len(pool)), len(pool))
    picked = []
    for number in range(count):
        turn, place = divmod(number, len(pool))
        text = pool[order[place]]
        picked.append(f"{text} ({turn + 1})" if turn else text)
    return picked


@cache
def _texts(folder: str, name: str) -> tuple[str, ...]:
    lines = (data_set(folder) / name).read_text("utf-8").splitlines()
    texts = dict.fromkeys(_text(json.loads(line)) for line in lines if line.strip())
    return tuple(text for text in texts if text)


def _text(row: dict[str, Any]) -> str:
    return f"{row.get('title') or ''} {row['text']}".strip()

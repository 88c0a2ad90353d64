"""Real texts brought to a wanted length: passages to rerank, and texts of 10 to 500 tokens.

Lengths are counted in words or characters by rates measured on the shared data, so they are near
what is asked and never exact; scripts report the true token counts.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator

from texts import english, korean

TOKENS_PER_ENGLISH_WORD = 1.46
TOKENS_PER_ENGLISH_CHARACTER = 0.25
TOKENS_PER_KOREAN_CHARACTER = 0.585

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def passages(count: int, *, tokens: int = 100, seed: int = 0) -> list[str]:
    """Return ``count`` English passages of whole sentences, half to one and a half ``tokens``."""
    chance = random.Random(seed)
    sentences = [
        sentence
        for text in english(4 * count, seed=seed)
        for sentence in _SENTENCE.split(text)
        if len(sentence) > 20
    ]
    chance.shuffle(sentences)
    found: list[str] = []
    place = 0
    while len(found) < count:
        wanted = chance.uniform(0.5, 1.5) * tokens / TOKENS_PER_ENGLISH_WORD
        passage: list[str] = []
        while sum(len(part.split()) for part in passage) < wanted * 0.9:
            passage.append(sentences[place % len(sentences)])
            place += 1
        found.append(" ".join(" ".join(passage).split()[: round(wanted * 1.3)]))
    return found


def varied(*, low: int = 10, high: int = 500, seed: int = 0) -> Iterator[str]:
    """Yield Korean and English texts without end, log-uniform from ``low`` to ``high`` tokens.

    Each is a stretch of one to several real texts that begins somewhere else each time, so no two
    are likely to be equal however many are drawn.
    """
    chance = random.Random(seed)
    pools = (
        (english(2000, seed=seed), 1 / TOKENS_PER_ENGLISH_CHARACTER),
        (korean(2000, seed=seed), 1 / TOKENS_PER_KOREAN_CHARACTER),
    )
    while True:
        pool, characters = chance.choice(pools)
        wanted = round(math.exp(chance.uniform(math.log(low), math.log(high))) * characters)
        text = chance.choice(pool)
        start = chance.randrange(max(1, len(text) - wanted))
        text = text[start:]
        while len(text) < wanted:
            text = f"{text} {chance.choice(pool)}"
        yield text[:wanted].strip() or text

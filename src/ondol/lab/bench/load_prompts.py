"""The texts: seeded words, so many of them that the server counts the wanted number of tokens.

What a word costs is measured once against the server's own count; words that are not one token are
left out. Texts differ from each other, but for a trace's shared blocks and the system prompt, so
that no prefix is shared by accident. Knows no HTTP: the counting is handed in.

Common English words, most of which are one token in every tokenizer: what prompts are made of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ondol.core.errors import BackendError
from ondol.lab.bench.request_trace import BLOCK_TOKENS, Row

_TEXT = """
about above across action after again against age air all almost alone along already also among
amount animal another answer any area arm around art ask away back bad ball bank base beautiful
become bed before began behind being believe below best better between big bird black blood blue
board boat body book both box boy break bridge bright bring brother brought brown build building
business buy call came camp can capital car care carry case cause cell center central century
certain chance change character check child choose church circle city class clean clear close
cloud coast cold color column come common company compare complete condition consider contain
continue control cook cool copy corner correct cost could country course cover cross crowd current
cut dance danger dark day dead deal death decide deep degree design develop die difference
different direct direction discover discuss distance divide doctor dog dollar door double down
draw dream dress drink drive drop dry during each early earth east easy eat edge effect egg eight
either electric element else end energy engine enough enter equal even evening event ever every
exact example exercise expect experience experiment express eye face fact family famous far farm
fast father favor fear feed feel feet fell felt few field fight figure fill final find fine finger
finish fire first fish five floor flow flower fly follow food foot force foreign forest form
forward found four free fresh friend front fruit full game garden gas gave general gentle girl
give glad glass go gold good government grand grass gray great green ground group grow guess gun
hair half hand happen happy hard hat have head hear heart heat heavy held help high hill history
hold hole home hope horse hot hotel hour house huge human hundred hunt ice idea image include
"""

WORDS: tuple[str, ...] = tuple(_TEXT.split())


Messages = list[dict[str, str]]
Count = Callable[[Messages], int]

SYSTEM = "You are a careful clerk."
_OPENING = "Notes:"
_TASK = "\n\nCount from 1 to 9999 without stopping: 1 2 3"
"""Small models go on counting until they are cut, where another task would let them stop early."""
_GROUP = 16
_ENOUGH = 4 * _GROUP


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What text costs on one server: ``base`` tokens for a prompt without words, and per word."""

    words: tuple[str, ...]
    base: int
    tokens_per_word: float

    @classmethod
    def measure(cls, count: Count, *, words: Sequence[str] = WORDS) -> Yardstick:
        """Return the yardstick of the model behind ``count``, which costs some twenty short calls.

        Keeps the groups of words that are one token each; where there are too few, all of them at
        their average cost. Raises what ``count`` raises, and ``BackendError`` where it counts nothing.
        """
        base = count(messages_of(()))
        groups = [tuple(words[at : at + _GROUP]) for at in range(0, len(words), _GROUP)]
        costs = [count(messages_of(group)) - base for group in groups]
        plain = [
            word
            for group, cost in zip(groups, costs, strict=True)
            if cost == len(group)
            for word in group
        ]
        if len(plain) >= _ENOUGH:
            return cls(tuple(plain), base, 1.0)
        if sum(costs) <= 0:
            raise BackendError(
                f"the server counts {base} tokens whatever the prompt is",
                hint="it must report usage.prompt_tokens",
            )
        return cls(tuple(words), base, sum(costs) / len(words))

    def words_for(self, tokens: int) -> int:
        """Return how many words bring a prompt to ``tokens``; at least one."""
        return max(1, round((tokens - self.base) / self.tokens_per_word))


class PromptMaker:
    """Makes the messages of a row; the same seed and number give the same text.

    ``scale`` is what the trace's token counts were multiplied by: a block shrinks with it.
    """

    def __init__(self, yardstick: Yardstick, *, seed: int, scale: float = 1.0) -> None:
        self._yardstick = yardstick
        self._seed = seed
        self._block_words = max(1, round(BLOCK_TOKENS * scale / yardstick.tokens_per_word))

    def messages(self, row: Row, *, number: int) -> Messages:
        """Return system and user message; rows that share leading blocks share leading text."""
        wanted = self._yardstick.words_for(row.prompt_tokens)
        if not row.blocks:
            return messages_of(self._words(f"row:{number}", wanted))
        words: list[str] = []
        for block in row.blocks:
            words += self._words(f"block:{block}", min(self._block_words, wanted - len(words)))
        words += self._words(f"rest:{number}", wanted - len(words))
        return messages_of(words)

    def _words(self, key: str, count: int) -> list[str]:
        if count <= 0:
            return []
        return random.Random(f"{self._seed}:{key}").choices(self._yardstick.words, k=count)


def messages_of(words: Sequence[str]) -> Messages:
    """Return the messages around ``words``; every word has a blank before it."""
    body = "".join(f" {word}" for word in words)
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{_OPENING}{body}{_TASK}"},
    ]

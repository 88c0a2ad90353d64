"""Which patterns of a JSON schema a grammar compiler may be given.

A compiler for generators hangs on ``a{2,1}`` and grows with every repetition, for everybody at once.
"""

from __future__ import annotations

import re

MAX_PATTERN = 1000
MAX_REPEATS = 1000

_COUNTED = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


def pattern_fault(pattern: str) -> str | None:
    """Return why ``pattern`` cannot be given to a generator, or ``None`` if it can."""
    if len(pattern) > MAX_PATTERN:
        return f"has {len(pattern)} characters, the limit is {MAX_PATTERN}"
    if "(?" in pattern.replace("(?:", ""):
        return "uses look-around or flags"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"does not compile: {error}"
    repeats = _counted_parts(pattern)
    if repeats > MAX_REPEATS:
        return f"repeats its parts up to {repeats} times, the limit is {MAX_REPEATS}"
    return None


def _counted_parts(pattern: str) -> int:
    """Return how many copies of its parts the counted repetitions (``{2,5}``) of a pattern make.

    A group that is repeated multiplies what is repeated inside it.
    """
    groups = [0]
    copies = at = 0
    while at < len(pattern):
        counted = _COUNTED.match(pattern, at)
        if counted is not None:
            times = int(counted[2] or counted[1] or 0)
            groups[-1] += max(copies, 1) * times - copies
            at = counted.end()
            continue
        token = _TOKEN.match(pattern, at)
        if token is None:
            break
        at = token.end()
        copies = 0
        if token[0] == "(":
            groups.append(0)
        elif token[0] == ")" and len(groups) > 1:
            copies = groups.pop()
            groups[-1] += copies
    return sum(groups)

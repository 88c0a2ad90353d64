"""One Korean model for all tests of a process.

Loading it takes a second and keeps no state behind: whoever asks first waits for it, and every
container of the tests shares it.
"""

from __future__ import annotations

from functools import cache

from ondol.language.korean import KeywordAnalyzer


@cache
def shared_analyzer() -> KeywordAnalyzer:
    """Return the analyzer of this process; it loads at the first Korean text."""
    return KeywordAnalyzer()

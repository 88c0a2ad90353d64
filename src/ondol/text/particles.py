"""Where a Korean noun may end: before a particle or a form of 이다, told without a model.

For words that are found by their letters (dictionaries, synonyms): ``전세`` is a word in ``전세를``
and none in ``전세계``. Pure.
"""

from __future__ import annotations

import re

_PARTICLES = re.compile(
    "(?:들)?(?:이라는|라는|이라고|라고|이란|란|으로서|으로써|로서|로써|으로부터|로부터|에게서|에서는|에게는|에서도|"
    "에서의|에서|에게|에는|에도|에|으로는|으로|로는|로|까지는|까지|부터|처럼|보다|마다|만을|만이|만|조차|은|는|이|가|을|를|"
    "과의|와의|과는|와는|상의|의|과|와|도|상|이나|나|이며|며|이고|고|이다|입니다|인지|인가요|인|이든|든|이라도|라도)?"
    "(?![가-힣])"
)


def noun_may_end(text: str, at: int) -> bool:
    """Whether a noun of NFC ``text`` may end at ``at``: no Hangul follows, or only particles do."""
    return _PARTICLES.match(text, at) is not None

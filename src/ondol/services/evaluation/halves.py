"""The two halves of a set of questions: one that chooses, one that decides.

Pure. A question's half hangs on its id alone, so the halves are the same in every run and for every
choice, whatever order the questions come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from ondol.core.errors import InvalidInput
from ondol.services.evaluation.datasets import Query

FEWEST = 8
"""Questions below which a half says nothing."""


def halves(queries: Sequence[Query]) -> tuple[list[Query], list[Query]]:
    """Return the half that chooses and the half that decides, drawn by a hash of the ids.

    Raises ``InvalidInput`` for fewer than 16 questions.
    """
    if len(queries) < 2 * FEWEST:
        raise InvalidInput(
            f"{len(queries)} questions with a known document; at least {2 * FEWEST} are needed",
            hint="add questions, each with the document that answers it",
            param="dataset",
        )
    drawn = sorted(
        queries, key=lambda one: (blake2b(one.id.encode(), digest_size=8).digest(), one.id)
    )
    return drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]

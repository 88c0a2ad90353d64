"""The staged search: all forms, then thread splits, then batching of the best ones.

Decides what is measured next and keeps what was; a ``Measurer`` measures. A later round's figures
replace an earlier one's, because its candidates ran side by side with their rivals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ondol.models.tuning.candidates import (
    Candidate,
    Round,
    budget_round,
    form_round,
    thread_round,
)
from ondol.models.tuning.choosing import leaders
from ondol.models.tuning.measured import Measured
from ondol.models.tuning.state import SearchState

LEADERS = 2


class Measurer(Protocol):
    """Measures candidates side by side and yields each as soon as its figures stand."""

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[Measured]: ...


def search(
    forms: Sequence[str],
    *,
    cores: int,
    measurer: Measurer,
    state: SearchState,
    max_loss: float,
    quick: bool = False,
    streams: bool = False,
) -> list[Measured]:
    """Return every candidate with its latest figures; ``quick`` stops after the forms.

    What ``state`` knows already is not measured again. An interruption loses the group under way.
    """
    found: dict[Candidate, Measured] = {}
    _play("forms", form_round(forms, cores=cores), measurer, state, found)
    if quick:
        return list(found.values())
    engines = leaders(list(found.values()), max_loss=max_loss, count=LEADERS)
    splits = thread_round(engines, cores=cores, streams=streams)
    _play("threads", splits, measurer, state, found)
    engines = leaders(list(found.values()), max_loss=max_loss, count=LEADERS)
    _play("budgets", budget_round(engines), measurer, state, found)
    return list(found.values())


def _play(
    name: Round,
    candidates: Sequence[Candidate],
    measurer: Measurer,
    state: SearchState,
    found: dict[Candidate, Measured],
) -> None:
    known = dict(state.known(name))
    left = [candidate for candidate in candidates if candidate not in known]
    if left:
        for one in measurer.measure(left):
            state.add(name, one)
            known[one.candidate] = one
    found.update({c: known[c] for c in candidates if c in known})

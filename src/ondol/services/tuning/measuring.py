"""Measures candidates in probes, side by side: one process an engine, runs in turn.

Each form is made first, in a process of its own, so that making it does not count as the running
encoder's memory. Then, turn after turn, every live probe runs the same items once, so that the
machine's other work hits all alike. A probe that crashes fails its own candidates only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.core.clock import Clock
from ondol.core.errors import BackendError, ProbeFailed
from ondol.models.fidelity import Fidelity
from ondol.models.tuning.candidates import Candidate, Engine
from ondol.models.tuning.measured import Measured
from ondol.services.evaluation.fidelity import FidelityItems
from ondol.services.probe.child import Probe
from ondol.services.probe.subject import Subject
from ondol.services.tuning.live import Live

AT_LEAST = 2
"""Engines that are measured however late it is: a model's default form and the reference."""

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What runs: ``bulk`` items, and ``lone`` ones with ``groups`` of them to a request.

    Everything runs ``repeats`` times after a warm-up, in at most ``live`` probes at once. ``until``
    is the clock's second after which no further engine starts.
    """

    bulk: Sequence[Any]
    lone: Sequence[Any]
    groups: Sequence[int]
    repeats: int = 3
    live: int = 3
    until: float | None = None


class ProbeMeasurer:
    """A ``Measurer`` over real encoders; its files go to ``folder``, which the caller removes."""

    def __init__(
        self,
        subject: Subject,
        items: FidelityItems,
        load: Load,
        *,
        folder: Path,
        cores: int,
        clock: Clock,
        note: Note,
        is_made: Callable[[str], bool],
    ) -> None:
        self._subject = subject
        self._items = items
        self._load = load
        self._cores = cores
        self._clock = clock
        self._note = note
        self._is_made = is_made
        self._fidelity: dict[str, Fidelity] = {}
        self._has_reference = False
        self._started = 0
        self._bulk = folder / "bulk.json"
        self._lone = folder / "lone.json"
        self._bulk.write_text(json.dumps(list(load.bulk)), "utf-8")
        self._lone.write_text(json.dumps(list(load.lone)), "utf-8")

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[Measured]:
        """Yield every candidate with its figures or its failure.

        Raises ``ProbeFailed`` when the reference form cannot run: nothing can be judged then.
        """
        engines = list(dict.fromkeys(candidate.engine for candidate in candidates))
        for at in range(0, len(engines), self._load.live):
            group = engines[at : at + self._load.live]
            yield from self._side_by_side([c for c in candidates if c.engine in group])

    def _side_by_side(self, candidates: Sequence[Candidate]) -> Iterator[Measured]:
        self._find_reference()
        lives: dict[Engine, Live] = {}
        failures: dict[Engine, str] = {}
        with ExitStack() as stack:
            for engine in dict.fromkeys(candidate.engine for candidate in candidates):
                try:
                    lives[engine] = self._start(engine, stack)
                except BackendError as error:
                    failures[engine] = error.message
            try:
                for turn in range(self._load.repeats + 1):
                    self._take_turn(turn, candidates, lives)
            except KeyboardInterrupt:
                yield from _salvaged(candidates, lives)
                raise
            for candidate in candidates:
                live = lives.get(candidate.engine)
                if live is None:
                    yield Measured(candidate, failure=failures[candidate.engine])
                else:
                    yield live.result(candidate)

    def _take_turn(
        self, turn: int, candidates: Sequence[Candidate], lives: Mapping[Engine, Live]
    ) -> None:
        """Run everything once. Turn 0 warms up; budgets rise, so that each shows its own peak."""
        for candidate in sorted(candidates, key=lambda one: one.token_budget):
            live = lives.get(candidate.engine)
            if live is None or live.failure:
                continue
            name = f"run {turn} of {self._load.repeats}" if turn else "warm-up"
            self._note(f"{candidate}: {name}")
            with _noting_failure(live):
                live.bulk(candidate, self._bulk, warm_up=turn == 0)
        for live in lives.values():
            if turn and not live.failure:
                with _noting_failure(live):
                    live.lone(self._lone, groups=self._load.groups)

    def _start(self, engine: Engine, stack: ExitStack) -> Live:
        self._refuse_late()
        self._make(engine.form)
        self._note(f"{engine}: loading")
        probe = stack.enter_context(Probe())
        loaded = self._subject.load(
            probe,
            form=engine.form,
            threads=engine.threads,
            streams=engine.streams,
        )
        fidelity = self._fidelity.get(engine.form)
        if fidelity is None:
            self._note(f"{engine}: fidelity")
            fidelity = self._items.measure(probe)
            self._fidelity[engine.form] = fidelity
        return Live(probe, loaded, fidelity)

    def _find_reference(self) -> None:
        if self._has_reference:
            return
        self._make(self._subject.reference)
        self._note(f"{self._subject.reference}: the reference outputs")
        with Probe() as probe:
            form = self._subject.reference
            self._subject.load(probe, form=form, threads=self._cores)
            self._items.set_reference(probe)
        self._has_reference = True

    def _make(self, form: str) -> None:
        if self._is_made(form):
            return
        self._note(f"{form}: making it")
        with Probe() as probe:
            self._subject.load(probe, form=form, threads=self._cores)

    def _refuse_late(self) -> None:
        """The first engines run however late it is: a search must have something to choose from."""
        late = self._load.until is not None and self._clock.monotonic() > self._load.until
        if late and self._started >= AT_LEAST:
            raise ProbeFailed("there was no time left for it", hint="run without --quick")
        self._started += 1


def _salvaged(candidates: Sequence[Candidate], lives: Mapping[Engine, Live]) -> Iterator[Measured]:
    """Yield what an interrupted group has measured whole, if fewer times than wanted."""
    for candidate in candidates:
        live = lives.get(candidate.engine)
        if live is not None and live.lone_seconds and not live.failure:
            found = live.result(candidate)
            if found.figures is not None:
                yield found


@contextmanager
def _noting_failure(live: Live) -> Iterator[None]:
    """A context in which the probe's failure becomes the engine's."""
    try:
        yield
    except ProbeFailed as error:
        live.failure = error.message

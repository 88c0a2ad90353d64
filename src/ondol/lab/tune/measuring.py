"""Measures candidates in probes, side by side: one process an engine, runs in turn.

Each form is made first, in a process of its own, so that making it does not count as the running
encoder's memory. Then, turn after turn, every live probe runs the same items once, so that the
machine's other work hits all alike. A probe that crashes fails its own candidates only.

A running probe of one engine, and the figures of the candidates that share it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.core.clock import Clock
from ondol.core.errors import BackendError, ProbeFailed
from ondol.core.types import OnNote
from ondol.lab.evaluate.fidelity import Fidelity
from ondol.lab.evaluate.form_fidelity import FidelityItems, figures
from ondol.lab.evaluate.statistics import percentile
from ondol.lab.probe.operations import Subject
from ondol.lab.probe.probe_child import EnergyMeter, Probe
from ondol.lab.tune.form_search import (
    DEFAULT_BUDGET,
    Candidate,
    EngineSettings,
    Figures,
    MeasuredForm,
)

MAX_BATCH = 64
MEGABYTE = 1e6


@dataclass(slots=True)
class Live:
    """One loaded engine. ``failure`` is set when it can no longer be measured."""

    probe: Probe
    loaded: Mapping[str, Any]
    fidelity: Fidelity
    failure: str = ""
    lone_seconds: list[float] = field(default_factory=list)
    warm_ups: dict[Candidate, Mapping[str, Any]] = field(default_factory=dict)
    runs: dict[Candidate, list[Mapping[str, Any]]] = field(default_factory=dict)
    joules: dict[Candidate, list[float | None]] = field(default_factory=dict)

    def bulk(self, candidate: Candidate, items: Path, *, warm_up: bool) -> None:
        """Run ``items`` as ``candidate`` batches them. Raises ``ProbeFailed``."""
        self.probe.ask("items", path=str(items))
        energy = EnergyMeter()
        run = self.probe.ask(
            "bulk",
            token_budget=candidate.token_budget,
            max_batch=MAX_BATCH,
            policy=candidate.policy,
        )
        joules = energy.joules()
        if run["failed"]:
            raise ProbeFailed(f"{run['failed']} of {run['texts']} texts failed", hint="see -v")
        if warm_up:
            self.warm_ups[candidate] = run
            return
        self.runs.setdefault(candidate, []).append(run)
        self.joules.setdefault(candidate, []).append(joules)

    def lone(self, items: Path, *, groups: Sequence[int]) -> None:
        """Run ``items``, ``groups`` of them to a request, one request at a time."""
        self.probe.ask("items", path=str(items))
        answer = self.probe.ask("lone", token_budget=DEFAULT_BUDGET, groups=list(groups))
        self.lone_seconds += answer["seconds"]

    def result(self, candidate: Candidate) -> MeasuredForm:
        """Return the candidate's figures: of its runs the median."""
        runs = self.runs.get(candidate)
        if self.failure or not runs:
            return MeasuredForm(candidate, failure=self.failure or "it never ran")
        found = figures(self.fidelity)
        return MeasuredForm(
            candidate,
            figures=Figures(
                texts_per_second=_median([run["texts"] / run["seconds"] for run in runs]),
                tokens_per_second=_median([run["tokens"] / run["seconds"] for run in runs]),
                p50_ms=percentile(self.lone_seconds, 0.5) * 1e3,
                p99_ms=percentile(self.lone_seconds, 0.99) * 1e3,
                peak_rss_mb=self.warm_ups.get(candidate, runs[0])["peak_bytes"] / MEGABYTE,
                steady_rss_mb=runs[-1]["steady_bytes"] / MEGABYTE,
                load_seconds=self.loaded["load_seconds"],
                joules_per_1000_texts=self._energy(candidate),
            ),
            loss=self.fidelity.loss,
            batch_invariant=self.fidelity.batch_invariant
            and bool(self.loaded["spec"]["batch_invariant"]),
            fidelity=found,
        )

    def _energy(self, candidate: Candidate) -> float | None:
        known = [joules for joules in self.joules.get(candidate, ()) if joules is not None]
        texts = self.runs[candidate][0]["texts"]
        return _median(known) / texts * 1000 if known else None


def _median(values: list[float]) -> float:
    return percentile(values, 0.5)


AT_LEAST = 2
"""Engines that are measured however late it is: a model's default form and the reference."""


@dataclass(frozen=True, slots=True)
class TuneLoad:
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
        load: TuneLoad,
        *,
        folder: Path,
        cores: int,
        clock: Clock,
        note: OnNote,
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

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[MeasuredForm]:
        """Yield every candidate with its figures or its failure.

        Raises ``ProbeFailed`` when the reference form cannot run: nothing can be judged then.
        """
        engines = list(dict.fromkeys(candidate.engine for candidate in candidates))
        for at in range(0, len(engines), self._load.live):
            group = engines[at : at + self._load.live]
            yield from self._side_by_side([c for c in candidates if c.engine in group])

    def _side_by_side(self, candidates: Sequence[Candidate]) -> Iterator[MeasuredForm]:
        self._find_reference()
        lives: dict[EngineSettings, Live] = {}
        failures: dict[EngineSettings, str] = {}
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
                    yield MeasuredForm(candidate, failure=failures[candidate.engine])
                else:
                    yield live.result(candidate)

    def _take_turn(
        self, turn: int, candidates: Sequence[Candidate], lives: Mapping[EngineSettings, Live]
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

    def _start(self, engine: EngineSettings, stack: ExitStack) -> Live:
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


def _salvaged(
    candidates: Sequence[Candidate], lives: Mapping[EngineSettings, Live]
) -> Iterator[MeasuredForm]:
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

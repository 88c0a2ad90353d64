"""Tunes one model: measures, chooses, and writes profile, evidence and picture.

Does nothing where the profile's key is this machine's own. Interrupted, it leaves what was measured
under ``ONDOL_HOME/tune`` and goes on from there the next time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ondol.core.clock import Clock
from ondol.core.machine import Machine
from ondol.core.settings.sections import FidelitySettings
from ondol.core.types import OnNote
from ondol.lab.evaluate.datasets import FidelityMaterial, material
from ondol.lab.evaluate.form_fidelity import FidelityItems
from ondol.lab.probe.operations import Subject, is_made, pair_items
from ondol.lab.tune.form_search import (
    BUDGETS,
    LEADERS,
    FormChoiceResult,
    MeasuredForm,
    Measurer,
    SearchState,
    choose,
    search,
)
from ondol.lab.tune.measuring import ProbeMeasurer, TuneLoad
from ondol.lab.tune.tune_plot import draw
from ondol.models.library import ModelFiles
from ondol.models.profile import ModelProfile, ProfileKey, key_of, read_profile, write_profile

QUICK_SECONDS = 45.0
"""After this many seconds a quick search starts nothing new."""

PROBE_BYTES = 1_200_000_000
"""Memory counted on for one live probe."""

MOST_LIVE = 8
LONE_REQUESTS = 12
REPEATS = 3
MakeMeasurer = Callable[[Subject, FidelityMaterial, TuneLoad, Path], Measurer]


@dataclass(frozen=True, slots=True)
class Tuned:
    """How the tuning of one model ended; ``fresh`` is false where nothing had to be done."""

    profile: ModelProfile
    fresh: bool
    picture: Path | None = None


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How thorough a tuning is to be; ``seconds`` bounds a quick one."""

    quick: bool = False
    force: bool = False
    seconds: float = QUICK_SECONDS

    def shared_by(self, models: int) -> TuneOptions:
        """Return the wish for one of ``models`` models that share the time."""
        return replace(self, seconds=self.seconds / max(1, models))


class TuneService:
    """Tunes models for ``machine`` and keeps the results under ``home``."""

    def __init__(
        self,
        home: Path,
        *,
        machine: Machine,
        fidelity: FidelitySettings,
        clock: Clock,
        measurer: MakeMeasurer | None = None,
    ) -> None:
        self._home = home
        self._machine = machine
        self._fidelity = fidelity
        self._clock = clock
        self._measurer = measurer

    def tune(self, files: ModelFiles, *, wish: TuneOptions, note: OnNote) -> Tuned:
        """Measure and choose; ``note`` hears what is being done.

        Raises ``GateFailed`` when no form may be chosen and ``ProbeFailed`` when the reference form
        does not run.
        """
        key = key_of(files, machine=self._machine)
        known = read_profile(self._home).models.get(files.entry.id)
        stale = known is None or known.key != key or (known.quick and not wish.quick)
        if known is not None and not stale and not wish.force:
            return Tuned(known, fresh=False)
        subject = Subject.of(files)
        measured = self._search(subject, files, key, wish, note)
        choice = choose(measured, max_loss=self._fidelity.default_max_loss)
        tuned = self._write(subject, key, choice, measured, wish)
        return Tuned(tuned, fresh=True, picture=self._draw(tuned))

    def steps(self, files: ModelFiles, *, wish: TuneOptions) -> int:
        """Return about how many notes a tuning of ``files`` gives, for a progress bar."""
        forms = len(_worth_trying(Subject.of(files), files, quick=wish.quick))
        first = 2 + forms * (2 + 1 + (1 if wish.quick else REPEATS))
        rivals = LEADERS + 1
        later = rivals * (2 + len(BUDGETS) + 1) * (2 + REPEATS)
        return first if wish.quick else first + later

    def _search(
        self, subject: Subject, files: ModelFiles, key: ProfileKey, wish: TuneOptions, note: OnNote
    ) -> list[MeasuredForm]:
        found = material(subject.role, subject.languages)
        if wish.quick:
            found = found.lightened()
        load = self._load(subject, found, wish)
        forms = _worth_trying(subject, files, quick=wish.quick)
        state = SearchState(
            self._home / "tune" / f"{subject.model}.json", key=key, plan=_plan(found, load, forms)
        )
        if state.count:
            note(f"going on: {state.count} measurements were kept")
        with tempfile.TemporaryDirectory(prefix="ondol-tune-") as folder:
            measured = search(
                forms,
                cores=self._machine.cores,
                measurer=self._measure_with(subject, found, load, Path(folder), files, note),
                state=state,
                max_loss=self._fidelity.default_max_loss,
                quick=wish.quick,
            )
        state.discard()
        return measured

    def _measure_with(
        self,
        subject: Subject,
        found: FidelityMaterial,
        load: TuneLoad,
        folder: Path,
        files: ModelFiles,
        note: OnNote,
    ) -> Measurer:
        if self._measurer is not None:
            return self._measurer(subject, found, load, folder)
        return ProbeMeasurer(
            subject,
            FidelityItems(subject, found, folder),
            load,
            folder=folder,
            cores=self._machine.cores,
            clock=self._clock,
            note=note,
            is_made=lambda form: is_made(files, form),
        )

    def _load(self, subject: Subject, found: FidelityMaterial, wish: TuneOptions) -> TuneLoad:
        bulk: list[Any]
        lone: list[Any]
        if subject.role == "reranker":
            bulk = [[pair.query, pair.document] for pair in pair_items(found.lists)]
            groups = [len(one.documents) for one in found.lists[:LONE_REQUESTS]]
            lone = bulk[: sum(groups)]
        else:
            texts = subject.text_items(found.texts)
            bulk = texts if wish.quick else texts * 2
            queries = found.retrieval.queries if found.retrieval else found.texts
            lone = subject.text_items(queries, role="query")
            groups = [1] * len(lone)
        free = self._machine.free_bytes // PROBE_BYTES
        return TuneLoad(
            bulk=bulk,
            lone=lone,
            groups=groups,
            repeats=1 if wish.quick else REPEATS,
            live=max(1, min(MOST_LIVE, free)),
            until=self._clock.monotonic() + wish.seconds if wish.quick else None,
        )

    def _write(
        self,
        subject: Subject,
        key: ProfileKey,
        choice: FormChoiceResult,
        measured: Sequence[MeasuredForm],
        wish: TuneOptions,
    ) -> ModelProfile:
        rows = sorted(
            ({**one.as_row(), "verdict": choice.verdicts[one.candidate]} for one in measured),
            key=lambda row: -row.get("texts_per_second", 0.0),
        )
        tuned = ModelProfile(
            model=subject.model,
            key=key,
            tuned=datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="seconds"),
            chosen={p: one.candidate.as_chosen() for p, one in choice.winners.items()},
            evidence=tuple(rows),
            quick=wish.quick,
        )
        write_profile(self._home, read_profile(self._home).with_model(tuned))
        return tuned

    def _draw(self, tuned: ModelProfile) -> Path:
        path = self._home / "tune" / f"{tuned.model}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cores = f"{self._machine.cores} core{'s' if self._machine.cores > 1 else ''}"
        picture = draw(
            tuned.evidence,
            title=tuned.model,
            subtitle=f"{self._machine.cpu}, {cores}, {tuned.tuned[:10]}; bubble area: peak memory",
            chosen=[one.form for one in tuned.chosen.values()],
            gate=self._fidelity.default_max_loss,
        )
        path.write_text(picture, "utf-8")
        return path


def _worth_trying(subject: Subject, files: ModelFiles, *, quick: bool) -> tuple[str, ...]:
    """A quick search makes no form anew but the model's default and the reference."""
    if not quick:
        return subject.forms
    made = (form for form in subject.forms if is_made(files, form))
    return tuple(dict.fromkeys([subject.forms[0], subject.reference, *made]))


def _plan(found: FidelityMaterial, load: TuneLoad, forms: Sequence[str]) -> str:
    said: list[Any] = [
        list(load.bulk),
        list(load.lone),
        list(load.groups),
        load.repeats,
        list(forms),
    ]
    said.append([list(found.texts), [pair.left for pair in found.pairs]])
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

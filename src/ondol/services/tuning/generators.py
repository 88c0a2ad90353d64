"""Tunes one generator: measures, chooses, and writes the profile.

Does nothing where the profile's key is this machine's own. Every measurement is kept under
``ONDOL_HOME/tune`` as soon as it is made, and an interrupted tuning goes on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ondol.core.clock import Clock
from ondol.core.machine import Machine
from ondol.core.setting_sections import GenerationSettings
from ondol.models.generator_form import GeneratorForm, generator_key
from ondol.models.library import ModelFiles
from ondol.models.prefill import chunk_tokens, estimated_rate
from ondol.models.profile import ModelProfile, ProfileKey, read_profile, write_profile
from ondol.models.tuning.generators import (
    GeneratorCandidate,
    MeasuredGenerator,
    choose_generators,
    detail_round,
    form_round,
    from_row,
    verdict,
)
from ondol.services.generator_assembly import (
    Build,
    builds_folder,
    make_generator,
    native_builds,
    offered_forms,
)
from ondol.services.tuning.generating import QUICK, Dose, GeneratorMeasurer
from ondol.services.tuning.service import Tuned, Wish

Note = Callable[[str], None]


class Measures(Protocol):
    """Measures one candidate after the other; ``reference`` is what the first that ran said."""

    reference: list[list[str]]

    def measure(self, candidate: GeneratorCandidate) -> MeasuredGenerator: ...


@dataclass(slots=True)
class Kept:
    """Measurements that survive an interruption; they count only under the same ``head``."""

    path: Path
    head: Mapping[str, Any]
    rows: dict[GeneratorCandidate, MeasuredGenerator] = field(default_factory=dict)
    reference: list[list[str]] = field(default_factory=list)

    def read(self) -> None:
        """Take in what an earlier run left, if it was this search."""
        try:
            data = json.loads(self.path.read_text("utf-8"))
            if data["head"] == json.loads(json.dumps(self.head)):
                found = [from_row(row) for row in data["rows"]]
                self.rows = {one.candidate: one for one in found}
                self.reference = data["reference"]
        except (OSError, ValueError, KeyError, TypeError):
            return

    def add(self, one: MeasuredGenerator) -> None:
        """Keep a measurement, on disk too; a failure is tried again the next time."""
        self.rows[one.candidate] = one
        rows = [row.as_row() for row in self.rows.values() if row.figures is not None]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.part")
        data = {"head": self.head, "reference": self.reference, "rows": rows}
        part.write_text(json.dumps(data), "utf-8")
        os.replace(part, self.path)


class GeneratorTuneService:
    """Tunes generators for ``machine`` and keeps the results under ``home``."""

    def __init__(
        self,
        home: Path,
        *,
        machine: Machine,
        settings: GenerationSettings,
        clock: Clock,
        forms: Sequence[str] | None = None,
        measurer: Measures | None = None,
    ) -> None:
        self._home = home
        self._machine = machine
        self._settings = settings
        self._clock = clock
        self._forms = offered_forms(home) if forms is None else tuple(forms)
        self._measurer = measurer

    def tune(self, files: ModelFiles, *, wish: Wish, note: Note) -> Tuned:
        """Measure and choose; ``note`` hears what is being done. Raises ``GateFailed``."""
        builds = native_builds(self._home)
        key = generator_key(files, machine=self._machine, builds=builds)
        known = read_profile(self._home).models.get(files.entry.id)
        stale = known is None or known.key != key or (known.quick and not wish.quick)
        if known is not None and not stale and not wish.force:
            return Tuned(known, fresh=False)
        measured = self._search(files, key, wish, note)
        return Tuned(self._write(files, key, measured, wish), fresh=True)

    def steps(self, *, wish: Wish) -> int:
        """Return about how many notes a tuning gives, for a progress bar."""
        return len(self._forms) + (0 if wish.quick else 6)

    def _search(
        self, files: ModelFiles, key: ProfileKey, wish: Wish, note: Note
    ) -> list[MeasuredGenerator]:
        dose = QUICK if wish.quick else Dose()
        head = {"key": asdict(key), "dose": asdict(dose), "slots": self._settings.slots}
        kept = Kept(self._home / "tune" / f"{files.entry.id}.json", head)
        if not wish.force:
            kept.read()
        measurer = self._measurer or GeneratorMeasurer(
            start=lambda candidate: self._start(files, candidate),
            slots=self._settings.slots,
            dose=dose,
            clock=self._clock,
        )
        measurer.reference = kept.reference
        until = self._clock.monotonic() + wish.seconds if wish.quick else None
        size = files.model_path.stat().st_size
        chunk = chunk_tokens(estimated_rate(size, cores=self._machine.cores))
        first = form_round(self._forms, cores=self._machine.cores, chunk=chunk)
        measured = self._measure(first, measurer, kept, note, until)
        if not wish.quick:
            more = detail_round(measured, cores=self._machine.cores)
            measured += self._measure(more, measurer, kept, note, until)
        kept.path.unlink(missing_ok=True)
        return measured

    def _measure(
        self,
        candidates: Sequence[GeneratorCandidate],
        measurer: Measures,
        kept: Kept,
        note: Note,
        until: float | None,
    ) -> list[MeasuredGenerator]:
        found: list[MeasuredGenerator] = []
        for number, candidate in enumerate(candidates):
            if until is not None and number > 0 and self._clock.monotonic() > until:
                late = "there was no time left for it; run without --quick"
                found.append(MeasuredGenerator(candidate, failure=late))
                continue
            if candidate not in kept.rows or kept.rows[candidate].figures is None:
                note(str(candidate))
                one = measurer.measure(candidate)
                kept.reference = measurer.reference
                kept.add(one)
            found.append(kept.rows[candidate])
        return found

    def _start(self, files: ModelFiles, candidate: GeneratorCandidate) -> Any:
        plan = GeneratorForm(
            form=candidate.form,
            reason="being measured",
            threads=candidate.threads,
            batch_tokens=candidate.token_budget,
            prefill_rate=0.0,
        )
        settings = self._settings.model_copy(update={"adapters": (), "context_tokens": 2048})
        return make_generator(Build(plan, files, settings, builds_folder(self._home)))

    def _write(
        self,
        files: ModelFiles,
        key: ProfileKey,
        measured: Sequence[MeasuredGenerator],
        wish: Wish,
    ) -> ModelProfile:
        chosen = choose_generators(measured, slots=self._settings.slots)
        rows = sorted(
            ({**one.as_row(), "verdict": verdict(one, chosen)} for one in measured),
            key=lambda row: -row.get("prefill_tokens_per_second", 0.0),
        )
        tuned = ModelProfile(
            model=files.entry.id,
            key=key,
            tuned=datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="seconds"),
            chosen=chosen,
            evidence=tuple(rows),
            quick=wish.quick,
        )
        write_profile(self._home, read_profile(self._home).with_model(tuned))
        return tuned

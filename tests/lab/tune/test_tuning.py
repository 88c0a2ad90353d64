"""Tuning one model: when it measures, what it leaves on disk, and measuring in probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lab.evaluate.test_fidelity_gate import EMBEDDING, RERANKING, fake

from ondol.core.clock import ManualClock, SystemClock
from ondol.core.errors import GateFailed, ProbeFailed
from ondol.core.machine import Machine
from ondol.core.settings.sections import FidelitySettings
from ondol.lab.evaluate.datasets import FidelityMaterial
from ondol.lab.evaluate.fidelity import EmbedderFidelity, Fidelity
from ondol.lab.evaluate.form_fidelity import FidelityItems
from ondol.lab.probe.operations import Subject
from ondol.lab.probe.probe_child import Probe
from ondol.lab.tune.form_search import Candidate, EngineSettings, Figures, MeasuredForm, Measurer
from ondol.lab.tune.measuring import ProbeMeasurer, TuneLoad
from ondol.lab.tune.tuning import TuneOptions, TuneService
from ondol.models.catalogue import catalogue
from ondol.models.download import FetchedFile
from ondol.models.library import ModelFiles
from ondol.models.manifest import Manifest, write_manifest
from ondol.models.profile import chosen, key_of, read_profile

MODEL = "all-minilm-l6-v2"
MACHINE = Machine(cores=2, memory_bytes=8_000_000_000, free_bytes=8_000_000_000, cpu="c")
LOAD = TuneLoad(bulk=["a b", "c d e"] * 8, lone=["a"] * 4, groups=[1] * 4, repeats=2, live=2)


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    folder = tmp_path / "models" / MODEL
    folder.mkdir(parents=True)
    fetched = FetchedFile(name="w", bytes=1, sha256="aa", source="local")
    write_manifest(folder, Manifest(MODEL, files=(fetched,)))
    return ModelFiles(catalogue()[MODEL], folder, folder / "w", folder / "t", 1)


class Bench:
    """Measurers that say int8 is twice as fast as the rest; counts what they were asked."""

    def __init__(self, *, loss: float = 0.001, stop_at: int = 10_000) -> None:
        self.asked = 0
        self.texts = 0
        self._loss = loss
        self._stop_at = stop_at

    def __call__(
        self, subject: Subject, material: FidelityMaterial, load: TuneLoad, folder: Path
    ) -> Measurer:
        self.texts = len(load.bulk)
        return self

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[MeasuredForm]:
        for candidate in candidates:
            if self.asked == self._stop_at:
                raise KeyboardInterrupt
            self.asked += 1
            speed = 20.0 if candidate.form == "onnx:int8" else 10.0
            figures = Figures(speed, speed, 100 / speed, 9, 100, 90, 1)
            yield MeasuredForm(candidate, figures, loss=self._loss)


def service(home: Path, bench: Bench, *, machine: Machine = MACHINE) -> TuneService:
    return TuneService(
        home, machine=machine, fidelity=FidelitySettings(), clock=ManualClock(0.0), measurer=bench
    )


def silent(note: str) -> None:
    return None


def test_a_tuning_leaves_profile_evidence_and_picture(tmp_path: Path, files: ModelFiles) -> None:
    bench = Bench()
    tuned = service(tmp_path, bench).tune(files, wish=TuneOptions(), note=silent)
    assert tuned.fresh
    key = key_of(files, machine=MACHINE)
    found = chosen(read_profile(tmp_path), MODEL, "bulk", key)
    assert found is not None
    assert found.form == "onnx:int8"
    evidence = read_profile(tmp_path).models[MODEL].evidence
    assert {row["form"] for row in evidence} >= {"onnx:int8", "onnx:fp32"}
    assert all(row["verdict"] for row in evidence)
    assert tuned.picture == tmp_path / "tune" / f"{MODEL}.svg"
    assert tuned.picture.read_text("utf-8").startswith("<svg")
    assert sorted(path.suffix for path in (tmp_path / "tune").iterdir()) == [".svg"]


def test_nothing_is_measured_again_until_something_changes(
    tmp_path: Path, files: ModelFiles
) -> None:
    service(tmp_path, Bench()).tune(files, wish=TuneOptions(), note=silent)
    again = Bench()
    assert not service(tmp_path, again).tune(files, wish=TuneOptions(), note=silent).fresh
    assert again.asked == 0
    assert service(tmp_path, again).tune(files, wish=TuneOptions(force=True), note=silent).fresh
    other = Bench()
    larger = replace(MACHINE, cores=4)
    assert (
        service(tmp_path, other, machine=larger).tune(files, wish=TuneOptions(), note=silent).fresh
    )
    assert other.asked > 0


def test_a_quick_tuning_does_for_a_quick_one_only(tmp_path: Path, files: ModelFiles) -> None:
    quick, full = Bench(), Bench()
    wish = TuneOptions(quick=True)
    assert service(tmp_path, quick).tune(files, wish=wish, note=silent).profile.quick
    assert not service(tmp_path, Bench()).tune(files, wish=wish, note=silent).fresh
    assert service(tmp_path, full).tune(files, wish=TuneOptions(), note=silent).fresh
    assert quick.asked < full.asked
    assert quick.texts < full.texts
    assert not service(tmp_path, Bench()).tune(files, wish=wish, note=silent).fresh


def test_an_interrupted_tuning_goes_on(tmp_path: Path, files: ModelFiles) -> None:
    whole = Bench()
    service(tmp_path / "whole", whole).tune(files, wish=TuneOptions(), note=silent)
    first, second = Bench(stop_at=2), Bench()
    with pytest.raises(KeyboardInterrupt):
        service(tmp_path, first).tune(files, wish=TuneOptions(), note=silent)
    assert read_profile(tmp_path).models == {}
    notes: list[str] = []
    service(tmp_path, second).tune(files, wish=TuneOptions(), note=notes.append)
    assert first.asked + second.asked == whole.asked
    assert "2 measurements were kept" in notes[0]


def test_a_model_without_a_form_to_choose_keeps_its_old_profile(
    tmp_path: Path, files: ModelFiles
) -> None:
    service(tmp_path, Bench()).tune(files, wish=TuneOptions(), note=silent)
    before = read_profile(tmp_path)
    with pytest.raises(GateFailed):
        service(tmp_path, Bench(loss=0.2)).tune(files, wish=TuneOptions(force=True), note=silent)
    assert read_profile(tmp_path) == before


def test_the_steps_of_a_quick_tuning_are_fewer(tmp_path: Path, files: ModelFiles) -> None:
    tuner = service(tmp_path, Bench())
    assert (
        0
        < tuner.steps(files, wish=TuneOptions(quick=True))
        < tuner.steps(files, wish=TuneOptions())
    )


def measurer(
    folder: Path,
    subject: Subject,
    *,
    items: FidelityItems,
    load: TuneLoad = LOAD,
    notes: list[str] | None = None,
) -> ProbeMeasurer:
    return ProbeMeasurer(
        subject,
        items,
        load,
        folder=folder,
        cores=1,
        clock=SystemClock(),
        note=(notes if notes is not None else []).append,
        is_made=lambda form: True,
    )


def test_candidates_are_measured_in_turn(tmp_path: Path) -> None:
    subject, notes = fake("embedder"), list[str]()
    one, other = Candidate(EngineSettings("fake:a", 1)), Candidate(EngineSettings("fake:b", 1), 512)
    items = FidelityItems(subject, EMBEDDING, tmp_path)
    found = list(measurer(tmp_path, subject, items=items, notes=notes).measure([one, other]))
    assert [measured.candidate for measured in found] == [one, other]
    for measured in found:
        assert measured.figures is not None
        assert measured.figures.texts_per_second > 0
        assert measured.figures.p99_ms >= measured.figures.p50_ms > 0
        assert measured.figures.peak_rss_mb > 5
        assert measured.loss == pytest.approx(0.0, abs=1e-9)
        assert measured.eligible(0.005)
    runs = [note for note in notes if ": run " in note]
    assert [run.partition(",")[0] for run in runs] == ["fake:b", "fake:a"] * 2


def test_a_reranker_is_measured_by_lists(tmp_path: Path) -> None:
    subject = fake("reranker")
    pairs = [["red gate", "blue"], ["red gate", "red gate opens"]]
    load = TuneLoad(bulk=pairs * 4, lone=pairs, groups=[2], repeats=1)
    items = FidelityItems(subject, RERANKING, tmp_path)
    (found,) = measurer(tmp_path, subject, items=items, load=load).measure(
        [Candidate(EngineSettings("fake", 1))]
    )
    assert found.eligible(0.005)
    assert found.fidelity["band"] == "kept"


class Choosy(FidelityItems):
    """Fails the first form it is asked for; the second depends on batch mates."""

    asked = 0

    def measure(self, probe: Probe) -> Fidelity:
        self.asked += 1
        if self.asked == 1:
            raise ProbeFailed("the process ended (SIGKILL)")
        found = super().measure(probe)
        assert isinstance(found, EmbedderFidelity)
        return replace(found, batch_mates=0.99)


def test_a_form_that_fails_fails_alone(tmp_path: Path) -> None:
    subject = fake("embedder")
    candidates = [Candidate(EngineSettings("fake:a", 1)), Candidate(EngineSettings("fake:b", 1))]
    items = Choosy(subject, EMBEDDING, tmp_path)
    dead, varying = measurer(tmp_path, subject, items=items).measure(candidates)
    assert dead.failure == "the process ended (SIGKILL)"
    assert varying.figures is not None
    assert not varying.batch_invariant
    assert not varying.eligible(0.005)


def test_an_interrupted_group_keeps_what_ran(tmp_path: Path) -> None:
    subject = fake("embedder")
    kept: list[MeasuredForm] = []

    def interrupt(note: str) -> None:
        if note.endswith("run 2 of 2"):
            raise KeyboardInterrupt

    measuring = ProbeMeasurer(
        subject,
        FidelityItems(subject, EMBEDDING, tmp_path),
        LOAD,
        folder=tmp_path,
        cores=1,
        clock=SystemClock(),
        note=interrupt,
        is_made=lambda form: True,
    )
    candidates = [Candidate(EngineSettings("fake:a", 1)), Candidate(EngineSettings("b:c", 1))]
    with pytest.raises(KeyboardInterrupt):
        kept.extend(measuring.measure(candidates))
    assert [one.candidate.form for one in kept] == ["fake:a", "b:c"]
    assert all(one.eligible(0.005) for one in kept)


def test_texts_that_fail_are_no_throughput(tmp_path: Path) -> None:
    subject = fake("embedder")
    load = replace(LOAD, bulk=["fine", "<<fail>>"])
    items = FidelityItems(subject, EMBEDDING, tmp_path)
    (found,) = measurer(tmp_path, subject, items=items, load=load).measure(
        [Candidate(EngineSettings("fake", 1))]
    )
    assert found.failure == "1 of 2 texts failed"


def test_after_the_time_is_up_only_the_first_two_forms_run(tmp_path: Path) -> None:
    subject = fake("embedder")
    load = replace(LOAD, until=SystemClock().monotonic() - 1)
    items = FidelityItems(subject, EMBEDDING, tmp_path)
    first, second, third = measurer(tmp_path, subject, items=items, load=load).measure(
        [Candidate(EngineSettings(f"fake:{name}", 1)) for name in "abc"]
    )
    assert first.eligible(0.005)
    assert second.eligible(0.005)
    assert "no time left" in third.failure

"""Tuning a generator: what is tried, what is chosen, and what an interruption leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ondol.backends.fake_generator import FakeGenerator
from ondol.core.clock import ManualClock, SystemClock
from ondol.core.errors import GateFailed, ModelError
from ondol.core.machine import Machine
from ondol.core.settings.sections import GenerationSettings
from ondol.lab.tune.generator_tuning import (
    QUICK,
    GeneratorCandidate,
    GeneratorFigures,
    GeneratorMeasurer,
    GeneratorTuneService,
    MeasuredGenerator,
    choose_generators,
    detail_round,
    from_row,
    verdict,
)
from ondol.lab.tune.tuning import TuneOptions
from ondol.models.catalogue import catalogue
from ondol.models.download import FetchedFile
from ondol.models.generator_form import NATIVE, PORTABLE
from ondol.models.library import ModelFiles
from ondol.models.manifest import Manifest, write_manifest
from ondol.models.profile import read_profile

MODEL = "smollm2-135m-instruct"
MACHINE = Machine(cores=2, memory_bytes=8_000_000_000, free_bytes=8_000_000_000, cpu="c")
FIGURES = GeneratorFigures(
    prefill_tokens_per_second=200.0,
    prefill_short_tokens_per_second=180.0,
    decode_tokens_per_second=40.0,
    streams_tokens_per_second=60.0,
    peak_rss_mb=500.0,
    load_seconds=1.0,
    agreement=1.0,
)


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    folder = tmp_path / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "w.gguf").write_bytes(b"GGUF" + bytes(100))
    fetched = FetchedFile(name="w.gguf", bytes=104, sha256="aa", source="local")
    write_manifest(folder, Manifest(MODEL, files=(fetched,)))
    return ModelFiles(catalogue()[MODEL], folder, folder / "w.gguf", None, 104)


class Bench:
    """Says that the native form reads twice as fast, and that a large chunk reads a tenth faster."""

    def __init__(self, *, stop_at: int = 10_000, agreement: float = 0.8) -> None:
        self.reference: list[list[str]] = []
        self.asked: list[GeneratorCandidate] = []
        self._stop_at = stop_at
        self._agreement = agreement

    def measure(self, candidate: GeneratorCandidate) -> MeasuredGenerator:
        if len(self.asked) == self._stop_at:
            raise KeyboardInterrupt
        self.asked.append(candidate)
        self.reference = self.reference or [["first"]]
        rate = 200.0 * (2 if candidate.form == NATIVE else 1)
        rate *= 1.1 if candidate.token_budget >= 512 else 1.0
        rate *= candidate.threads / MACHINE.cores
        figures = replace(FIGURES, prefill_tokens_per_second=rate, agreement=self._agreement)
        return MeasuredGenerator(candidate, figures)


def service(home: Path, bench: Bench | None = None) -> GeneratorTuneService:
    return GeneratorTuneService(
        home,
        machine=MACHINE,
        settings=GenerationSettings(),
        clock=ManualClock(),
        forms=(PORTABLE, NATIVE),
        measurer=bench,
    )


def quiet(_: str) -> None:
    pass


def test_each_purpose_gets_what_suits_it(tmp_path: Path, files: ModelFiles) -> None:
    tuned = service(tmp_path, Bench()).tune(files, wish=TuneOptions(), note=quiet)

    chat, batch = tuned.profile.chosen["chat"], tuned.profile.chosen["batch"]
    assert (chat.form, chat.threads) == (NATIVE, 2)
    assert chat.token_budget / 400.0 <= 0.4
    assert (batch.form, batch.token_budget) == (NATIVE, 512)
    assert read_profile(tmp_path).models[MODEL] == tuned.profile
    assert {row["verdict"] for row in tuned.profile.evidence} > {"slower"}


def test_nothing_is_done_twice_unless_forced(tmp_path: Path, files: ModelFiles) -> None:
    service(tmp_path, Bench()).tune(files, wish=TuneOptions(), note=quiet)
    again = Bench()

    assert not service(tmp_path, again).tune(files, wish=TuneOptions(), note=quiet).fresh
    assert again.asked == []
    assert service(tmp_path, again).tune(files, wish=TuneOptions(force=True), note=quiet).fresh


def test_an_interrupted_tuning_goes_on_with_the_same_reference(
    tmp_path: Path, files: ModelFiles
) -> None:
    first = Bench(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        service(tmp_path, first).tune(files, wish=TuneOptions(), note=quiet)
    second = Bench()
    service(tmp_path, second).tune(files, wish=TuneOptions(), note=quiet)

    assert len(first.asked) == 2
    assert not set(first.asked) & set(second.asked)
    assert second.reference == [["first"]]
    assert not (tmp_path / "tune" / f"{MODEL}.json").exists()


def test_quick_tries_each_form_once(tmp_path: Path, files: ModelFiles) -> None:
    bench = Bench()
    tuned = service(tmp_path, bench).tune(files, wish=TuneOptions(quick=True), note=quiet)

    assert [one.form for one in bench.asked] == [PORTABLE, NATIVE]
    assert tuned.profile.quick


def test_a_form_that_says_something_else_is_not_chosen(tmp_path: Path, files: ModelFiles) -> None:
    with pytest.raises(GateFailed, match="agreed"):
        service(tmp_path, Bench(agreement=0.1)).tune(files, wish=TuneOptions(), note=quiet)
    mine = MeasuredGenerator(GeneratorCandidate(NATIVE, 2, 64), replace(FIGURES, agreement=0.1))
    right = MeasuredGenerator(GeneratorCandidate(PORTABLE, 2, 64), FIGURES)
    chosen = choose_generators([mine, right], slots=2)

    assert chosen["chat"].form == PORTABLE
    assert "differs" in verdict(mine, chosen)
    assert verdict(right, chosen) == "chosen for chat and batch"


def test_a_row_reads_back_as_what_it_was() -> None:
    good = MeasuredGenerator(GeneratorCandidate(NATIVE, 2, 64), FIGURES)
    bad = MeasuredGenerator(GeneratorCandidate(PORTABLE, 1, 32), failure="no")

    assert [from_row(one.as_row()) for one in (good, bad)] == [good, bad]


def test_details_are_tried_of_the_best_only() -> None:
    rivals = [
        MeasuredGenerator(GeneratorCandidate(PORTABLE, 2, 64), FIGURES),
        MeasuredGenerator(
            GeneratorCandidate(NATIVE, 2, 64), replace(FIGURES, prefill_tokens_per_second=400.0)
        ),
    ]
    found = detail_round(rivals, cores=2)

    assert {one.form for one in found} == {NATIVE}
    assert GeneratorCandidate(NATIVE, 1, 64) in found
    assert GeneratorCandidate(NATIVE, 2, 96) in found
    assert rivals[1].candidate not in found


def test_measures_a_generator_through_its_protocol() -> None:
    def start(candidate: GeneratorCandidate) -> FakeGenerator:
        if candidate.form == NATIVE:
            raise ModelError("it is not built")
        return FakeGenerator(slots=2)

    measurer = GeneratorMeasurer(start=start, slots=2, dose=QUICK, clock=SystemClock())
    good = measurer.measure(GeneratorCandidate(PORTABLE, 2, 64))
    bad = measurer.measure(GeneratorCandidate(NATIVE, 2, 64))

    assert good.figures is not None
    assert good.figures.agreement == 1.0
    assert good.figures.prefill_tokens_per_second == pytest.approx(1000.0)
    assert good.figures.streams_tokens_per_second > good.figures.decode_tokens_per_second * 0.9
    assert bad.failure == "it is not built"

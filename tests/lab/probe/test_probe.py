"""The probe: an encoder in a process of its own, through the engine's batcher."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ondol.core.errors import ProbeFailed
from ondol.lab.probe.probe_child import EnergyMeter, Probe

TEXTS = ["short", "a longer text of some words " * 4, "온돌은 따뜻하다", "x y z"] * 5


@pytest.fixture
def probe() -> Iterator[Probe]:
    with Probe() as one:
        yield one


def load(probe: Probe, model: str = "fake-embedder") -> None:
    probe.ask("load", model=model, form="fake", threads=1, models="")


def items(folder: Path, content: object) -> str:
    path = folder / "items.json"
    path.write_text(json.dumps(content), "utf-8")
    return str(path)


def test_bulk_runs_every_text_within_the_budget(probe: Probe, tmp_path: Path) -> None:
    load(probe)
    probe.ask("items", path=items(tmp_path, TEXTS))
    near = probe.ask("bulk", token_budget=2000, max_batch=5)
    assert (near["texts"], near["failed"]) == (20, 0)
    assert near["tokens"] > 0
    assert near["peak_bytes"] >= near["steady_bytes"] > 0
    arrival = probe.ask("bulk", token_budget=2000, max_batch=5, policy="arrival")
    assert arrival["tokens"] == near["tokens"]
    assert arrival["padded_tokens"] > near["padded_tokens"], "neighbours in length pad less"


def test_lone_requests_are_timed_one_by_one(probe: Probe, tmp_path: Path) -> None:
    load(probe)
    probe.ask("items", path=items(tmp_path, TEXTS))
    assert len(probe.ask("lone", token_budget=512)["seconds"]) == 20
    load(probe, "fake-reranker")
    probe.ask("items", path=items(tmp_path, [["q", text] for text in TEXTS]))
    assert len(probe.ask("lone", token_budget=512, groups=[4, 16])["seconds"]) == 2


def test_outputs_come_in_order(probe: Probe, tmp_path: Path) -> None:
    load(probe)
    probe.ask("items", path=items(tmp_path, TEXTS))
    target = tmp_path / "rows.npy"
    probe.ask("outputs", path=str(target), token_budget=128)
    rows = np.load(target)
    assert rows.shape == (20, 64)
    np.testing.assert_array_equal(rows[:4], rows[4:8])
    assert not np.array_equal(rows[0], rows[1])


def test_batch_mates_of_a_sound_encoder_change_nothing(probe: Probe, tmp_path: Path) -> None:
    load(probe)
    probe.ask("items", path=items(tmp_path, TEXTS))
    assert probe.ask("mates")["cosine"] == pytest.approx(1.0)


def test_inputs_of_an_exact_length_can_be_made(probe: Probe) -> None:
    load(probe)
    probe.ask("items", count=6, tokens=128)
    assert probe.ask("bulk", token_budget=256, max_batch=64)["tokens"] == 6 * 128
    with pytest.raises(ProbeFailed, match="512"):
        probe.ask("items", count=1, tokens=513)


def test_an_encoders_error_is_said_and_the_probe_goes_on(probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(ProbeFailed, match="no encoder is loaded"):
        probe.ask("lone", token_budget=1)
    load(probe)
    probe.ask("items", path=items(tmp_path, ["fine", "<<fail>>"]))
    assert probe.ask("bulk", token_budget=64, max_batch=4)["failed"] == 1
    with pytest.raises(ProbeFailed, match="<<fail>>"):
        probe.ask("plain")
    with pytest.raises(ProbeFailed, match="dance"):
        probe.ask("dance")


def test_a_probe_that_dies_says_how(probe: Probe) -> None:
    load(probe)
    os.kill(probe.pid, signal.SIGKILL)
    with pytest.raises(ProbeFailed, match="SIGKILL") as died:
        probe.ask("plain")
    assert "memory" in died.value.hint


def test_an_answer_that_does_not_come_ends_the_probe(probe: Probe) -> None:
    os.kill(probe.pid, signal.SIGSTOP)
    with pytest.raises(ProbeFailed, match="longer than 0.2 s"):
        probe.ask("plain", seconds=0.2)


def test_energy_is_read_where_there_are_counters(tmp_path: Path) -> None:
    assert EnergyMeter(root=tmp_path).joules() is None
    for number in range(2):
        zone = tmp_path / f"intel-rapl:{number}"
        zone.mkdir()
        (zone / "energy_uj").write_text("900000")
        (zone / "max_energy_range_uj").write_text("1000000")
    (tmp_path / "intel-rapl:0:0").mkdir()
    meter = EnergyMeter(root=tmp_path)
    (tmp_path / "intel-rapl:0/energy_uj").write_text("950000")
    (tmp_path / "intel-rapl:1/energy_uj").write_text("100000")
    assert meter.joules() == pytest.approx(0.05 + 0.2)

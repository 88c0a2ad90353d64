"""The staged search and the choice, over a measurer that knows the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ondol.core.errors import GateFailed
from ondol.lab.tune.form_search import (
    BUDGETS,
    Candidate,
    EngineSettings,
    Figures,
    MeasuredForm,
    SearchState,
    choose,
    from_row,
    leaders,
    search,
)
from ondol.lab.tune.tune_plot import draw
from ondol.models.profile import ProfileKey

KEY = ProfileKey(cpu="a", cores=2, versions={}, fingerprint="f")
FORMS = ("onnx:fp32", "onnx:int8", "openvino:int8")
SPEED = {"onnx:fp32": 10.0, "onnx:int8": 20.0, "openvino:int8": 40.0}


def measured(
    form: str,
    speed: float,
    *,
    p50: float = 5.0,
    memory: float = 100.0,
    loss: float = 0.0,
    invariant: bool = True,
    threads: int = 2,
    budget: int = 2048,
) -> MeasuredForm:
    return MeasuredForm(
        Candidate(EngineSettings(form, threads), budget),
        figures=Figures(speed, speed * 50, p50, p50 * 2, memory, memory, 0.5),
        loss=loss,
        batch_invariant=invariant,
        fidelity={"cosine_mean": 1 - loss, "batch_mates": 1.0 if invariant else 0.9},
    )


class Oracle:
    """Twice the threads are twice the speed; a budget of 1024 is the best by a tenth."""

    def __init__(self, *, broken: Sequence[str] = (), stop_at: int = 10_000) -> None:
        self.asked: list[Candidate] = []
        self._broken = broken
        self._stop_at = stop_at

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[MeasuredForm]:
        for candidate in candidates:
            if len(self.asked) == self._stop_at:
                raise KeyboardInterrupt
            self.asked.append(candidate)
            yield self._one(candidate)

    def _one(self, candidate: Candidate) -> MeasuredForm:
        if candidate.form in self._broken:
            return MeasuredForm(candidate, failure="SIGKILL")
        engine = candidate.engine
        speed = SPEED[candidate.form] * engine.threads / 2
        speed *= 1.1 if candidate.token_budget == 1024 else 1.0
        speed *= 0.5 if candidate.policy == "arrival" else 1.0
        one = measured(candidate.form, speed, p50=200 / speed, memory=candidate.token_budget / 10)
        return replace(one, candidate=candidate)


def state(folder: Path, plan: str = "p", key: ProfileKey = KEY) -> SearchState:
    return SearchState(folder / "tune" / "m.json", key=key, plan=plan)


def find(oracle: Oracle, kept: SearchState, *, quick: bool = False) -> list[MeasuredForm]:
    return search(FORMS, cores=2, measurer=oracle, state=kept, max_loss=0.005, quick=quick)


def test_the_search_ends_with_the_fastest_form_threads_and_budget(tmp_path: Path) -> None:
    oracle = Oracle()
    found = find(oracle, state(tmp_path))
    best = choose(found, max_loss=0.005).winners["bulk"].candidate
    assert best == Candidate(EngineSettings("openvino:int8", 2), 1024)
    tried = {candidate.form for candidate in oracle.asked if candidate.token_budget != 2048}
    assert tried == {"openvino:int8", "onnx:int8"}, "budgets are for the leaders only"
    assert {c.token_budget for c in oracle.asked if c.form == "openvino:int8"} == set(BUDGETS)
    assert any(c.engine.threads == 1 for c in oracle.asked)


def test_a_quick_search_tries_forms_only(tmp_path: Path) -> None:
    oracle = Oracle()
    find(oracle, state(tmp_path), quick=True)
    assert [candidate.form for candidate in oracle.asked] == list(FORMS)


def test_a_form_that_crashes_is_evidence_and_the_others_go_on(tmp_path: Path) -> None:
    found = find(Oracle(broken=["openvino:int8"]), state(tmp_path))
    choice = choose(found, max_loss=0.005)
    assert choice.winners["bulk"].candidate.form == "onnx:int8"
    assert choice.verdicts[Candidate(EngineSettings("openvino:int8", 2))] == "failed: SIGKILL"


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7, 11])
def test_an_interrupted_search_goes_on_where_it_stopped(tmp_path: Path, stop_at: int) -> None:
    whole = Oracle()
    expected = find(whole, state(tmp_path / "whole"))
    first = Oracle(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        find(first, state(tmp_path))
    second = Oracle()
    kept = state(tmp_path)
    assert kept.count == stop_at
    assert find(second, kept) == expected
    assert first.asked + second.asked == whole.asked


def test_what_was_kept_counts_for_its_key_and_plan_only(tmp_path: Path) -> None:
    find(Oracle(), state(tmp_path), quick=True)
    assert state(tmp_path).count == 3
    assert state(tmp_path, plan="other").count == 0
    assert state(tmp_path, key=replace(KEY, cores=4)).count == 0
    (tmp_path / "tune/m.json").write_text('{"rounds": 3', "utf-8")
    assert state(tmp_path).count == 0
    kept = state(tmp_path)
    kept.discard()
    assert list((tmp_path / "tune").iterdir()) == []


def test_a_failure_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    find(Oracle(broken=["onnx:int8"]), state(tmp_path), quick=True)
    oracle = Oracle()
    find(oracle, state(tmp_path), quick=True)
    assert [candidate.form for candidate in oracle.asked] == ["onnx:int8"]


def test_a_form_beyond_the_loss_is_never_chosen_however_fast() -> None:
    rows = [measured("onnx:fp32", 10), measured("fast:int8", 100, p50=1, loss=0.006)]
    choice = choose(rows, max_loss=0.005)
    assert {one.candidate.form for one in choice.winners.values()} == {"onnx:fp32"}
    assert "0.60%" in choice.verdicts[rows[1].candidate]


def test_a_form_that_depends_on_batch_mates_is_never_chosen() -> None:
    rows = [measured("onnx:fp32", 10), measured("fast:int8", 100, invariant=False)]
    choice = choose(rows, max_loss=0.005)
    assert choice.winners["bulk"].candidate.form == "onnx:fp32"
    assert "0.9000" in choice.verdicts[rows[1].candidate]


def test_batches_in_order_of_arrival_are_for_comparison() -> None:
    arrival = replace(
        measured("onnx:int8", 90),
        candidate=Candidate(EngineSettings("onnx:int8", 2), policy="arrival"),
    )
    choice = choose([measured("onnx:int8", 10), arrival], max_loss=0.005)
    assert choice.winners["bulk"].candidate.policy == "nearest"
    assert "comparison" in choice.verdicts[arrival.candidate]


def test_near_ties_go_to_less_memory() -> None:
    rows = [measured("big:int8", 100, memory=900), measured("small:int8", 96, memory=200)]
    choice = choose(rows, max_loss=0.005)
    assert choice.winners["bulk"].candidate.form == "small:int8"
    assert "700 MB more" in choice.verdicts[rows[0].candidate]


@pytest.mark.parametrize(("quick_p50", "forms"), [(4.0, 2), (4.6, 1)])
def test_two_forms_are_used_only_where_the_second_pays(quick_p50: float, forms: int) -> None:
    rows = [
        measured("bulk:int8", 100, p50=5.0),
        measured("query:int8", 50, p50=quick_p50),
    ]
    winners = choose(rows, max_loss=0.005).winners
    assert winners["bulk"].candidate.form == "bulk:int8"
    assert len({one.candidate.form for one in winners.values()}) == forms


def test_one_encoder_has_one_budget() -> None:
    rows = [
        measured("a:int8", 100, p50=5.0, budget=1024),
        measured("a:int8", 80, p50=4.9, budget=512, memory=10),
    ]
    winners = choose(rows, max_loss=0.005).winners
    assert winners["bulk"] == winners["query"] == rows[0]


def test_no_form_within_the_loss_is_a_failed_gate() -> None:
    with pytest.raises(GateFailed, match="fast:int8.*loses 10.00%") as refused:
        choose([measured("fast:int8", 100, loss=0.1)], max_loss=0.005)
    assert "default_max_loss" in refused.value.hint
    assert leaders([measured("fast:int8", 100, loss=0.1)], max_loss=0.005, count=2) == []


def test_rows_survive_json() -> None:
    for one in (
        measured("a:int8", 3),
        MeasuredForm(Candidate(EngineSettings("b:fp32", 1)), failure="died"),
    ):
        assert from_row(one.as_row()) == one


def test_the_picture_shows_every_measured_form() -> None:
    rows = [
        measured("onnx:fp32", 10, memory=400).as_row(),
        measured("onnx:int8", 20, loss=0.002).as_row(),
        measured("onnx:int8", 15, loss=0.002, budget=512).as_row(),
        MeasuredForm(Candidate(EngineSettings("broken:int8", 2)), failure="died").as_row(),
    ]
    text = draw(rows, title="a <model>", subtitle="&", chosen=["onnx:int8"], gate=0.005)
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{space}circle")
    assert len(circles) == 2
    titles = [circle.findtext(f"{space}title") or "" for circle in circles]
    assert sorted(title.split(":")[0] + title.split(":")[1] for title in titles) == [
        "onnxfp32",
        "onnxint8",
    ]
    places = {
        title.split(": ")[0]: float(c.attrib["cx"])
        for title, c in zip(titles, circles, strict=True)
    }
    assert places["onnx:int8"] > places["onnx:fp32"]
    radii = {
        title.split(": ")[0]: float(c.attrib["r"]) for title, c in zip(titles, circles, strict=True)
    }
    assert radii["onnx:fp32"] > radii["onnx:int8"]


def test_a_picture_of_nothing_is_still_a_picture() -> None:
    assert ElementTree.fromstring(draw([], title="t", subtitle="", chosen=[], gate=0.0)) is not None

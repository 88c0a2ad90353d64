"""Baselines, the gate, and the record of what was found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ondol.core.errors import GateFailed, InvalidInput, NotFound
from ondol.lab.evaluate.answer_evaluation import QueryScore, score
from ondol.lab.evaluate.datasets import Query
from ondol.lab.evaluate.history import NAME, record, recorded
from ondol.lab.evaluate.quality_gate import check, read_baseline, save_baseline


def scored(*ranks: int) -> list[QueryScore]:
    """Return one score per rank at which the only right document was found; 0: it was not."""
    return [
        score(Query(f"q{n}", "연차 휴가", {"a": 1.0}), ["x"] * (rank - 1) + ["a"] * bool(rank))
        for n, rank in enumerate(ranks)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "baseline.json"
    save_baseline(path, scored(1, 1, 2, 0), dataset="set", mode="hybrid")
    return path


def test_equal_and_better_runs_pass(file: Path) -> None:
    before = read_baseline(file, dataset="set", mode="hybrid")
    for ranks in ((1, 1, 2, 0), (1, 1, 1, 3)):
        verdict = check(before, scored(*ranks), tolerance=0.0)
        assert verdict.passed
        assert verdict.fallen == ()
        verdict.enforce()


def test_a_worse_run_fails_and_names_the_queries_worst_first(file: Path) -> None:
    before = read_baseline(file, dataset="set", mode="hybrid")
    verdict = check(before, scored(2, 0, 2, 0))
    assert [one.id for one in verdict.fallen] == ["q1", "q0"]
    assert verdict.fallen[0].now["recall_at_10"] == 0.0
    with pytest.raises(GateFailed, match="q1, q0"):
        verdict.enforce()


def test_the_tolerance_is_of_means(file: Path) -> None:
    before = read_baseline(file, dataset="set", mode="hybrid")
    lower = scored(1, 2, 2, 0)  # nDCG falls by (1 - 0.6309) / 4 = 0.0923
    assert not check(before, lower, tolerance=0.09).passed
    within = check(before, lower, tolerance=0.1)
    assert within.passed
    assert [one.id for one in within.fallen] == ["q1"]


def test_a_fall_of_recall_alone_fails_too() -> None:
    before = {"q": {"ndcg_at_10": 0.5, "recall_at_10": 1.0}}
    now = replace(scored(1)[0], id="q", recall_at_10=0.5)
    assert not check(before, [now]).passed


def test_only_shared_queries_count(file: Path) -> None:
    before = read_baseline(file, dataset="set", mode="hybrid")
    grown = [*scored(1, 1, 2, 0), replace(scored(0)[0], id="new")]
    assert check(before, grown, tolerance=0.0).queries == 4
    with pytest.raises(InvalidInput, match="shares no query"):
        check(before, [replace(scored(1)[0], id="new")])


def test_what_is_no_baseline_is_told_apart(file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_baseline(tmp_path / "absent.json", dataset="set", mode="hybrid")
    with pytest.raises(InvalidInput, match="'other'"):
        read_baseline(file, dataset="other", mode="hybrid")
    with pytest.raises(InvalidInput, match="'dense'"):
        read_baseline(file, dataset="set", mode="dense")
    for text in ("{", "[]", '{"format": "else"}'):
        bad = tmp_path / "bad.json"
        bad.write_text(text, "utf-8")
        with pytest.raises(InvalidInput, match="no baseline"):
            read_baseline(bad, dataset="set", mode="hybrid")
    kept = json.loads(file.read_text("utf-8"))
    kept["queries"]["q0"] = {"ndcg_at_10": "high"}
    file.write_text(json.dumps(kept), "utf-8")
    with pytest.raises(InvalidInput, match="no scores"):
        read_baseline(file, dataset="set", mode="hybrid")


def test_the_record_grows_and_outlives_a_line_cut_short(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert recorded(home) == []
    record(home, "retrieval", {"dataset": "가", "ndcg_at_10": 0.5}, at=0.0)
    with (home / NAME).open("a", encoding="utf-8") as file:
        file.write('{"kind": "retrie')
    record(home, "answers", {"dataset": "나"}, at=60.0)
    found = recorded(home)
    assert [(row["kind"], row["dataset"]) for row in found] == [
        ("retrieval", "가"),
        ("answers", "나"),
    ]
    assert found[0]["at"] == "1970-01-01T00:00:00+00:00"
    assert recorded(home, last=1) == found[1:]

"""The bench's workloads, its choice of a form, and its figures over fake encoders."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from tests.lab.evaluate.test_fidelity_gate import fake
from tests.lab.tune.test_tuning import MACHINE, files

from ondol.core.settings import Settings
from ondol.core.settings.sections import ModelSettings
from ondol.lab.bench import encoder_bench as encoders
from ondol.lab.bench.encoder_bench import (
    BUDGETS,
    BenchPlan,
    embedding_work,
    planned,
    recommended,
    reranking_work,
    spread,
    sweep,
)
from ondol.lab.evaluate.datasets import JudgedList
from ondol.lab.probe.operations import Subject
from ondol.models.library import ModelFiles
from ondol.models.profile import (
    Chosen,
    ModelProfile,
    Profile,
    key_of,
    write_profile,
)

__all__ = ["files"]

CHOSEN = Chosen(form="fake", threads=1, token_budget=256)
TEXTS = ["red gate", "a longer text of some more words", "blue"] * 8


def silent(note: str) -> None:
    return None


def test_an_embedding_bench_has_the_contracts_keys() -> None:
    subject = fake("embedder")
    found = encoders.run(
        subject,
        None,
        embedding_work(subject, TEXTS),
        BenchPlan(CHOSEN, None, 1),
        cores=1,
        note=silent,
    )
    assert found["form"] == "fake"
    assert found["texts"] == found["lone_requests"] == 24
    assert found["texts_per_second"] > 0
    assert found["p99_ms"] >= found["p50_ms"] > 0
    assert found["peak_rss_mb"] >= found["steady_rss_mb"] > 0
    assert found["fidelity"]["cosine_mean"] == pytest.approx(1.0)
    assert found["fidelity"]["cosine_min"] == pytest.approx(1.0)
    assert found["batch_mates"] == pytest.approx(1.0)
    assert found["ratio"] == pytest.approx(
        found["texts_per_second"] / found["baseline"]["texts_per_second"]
    )
    assert found["baseline"]["form"] == "fake"


def test_a_reranking_bench_asks_one_list_a_request() -> None:
    lists = [JudgedList("red gate", ("red gate opens", "blue", "a gate")), JudgedList("b", ("c",))]
    query = Chosen(form="other", threads=1, token_budget=64)
    found = encoders.run(
        fake("reranker"),
        None,
        reranking_work(lists),
        BenchPlan(CHOSEN, query, 1),
        cores=1,
        note=silent,
    )
    assert (found["texts"], found["lone_requests"]) == (4, 2)
    assert found["fidelity"]["kendall_tau"] == pytest.approx(1.0)
    assert found["query"]["form"] == "other"


def test_a_sweep_has_a_row_a_budget() -> None:
    subject = fake("embedder")
    found = sweep(subject, None, embedding_work(subject, TEXTS), CHOSEN, repeats=1, note=silent)
    assert [row["token_budget"] for row in found["sweep"]] == list(BUDGETS)
    assert found["recommended"] in BUDGETS
    peaks = [row["peak_rss_mb"] for row in found["sweep"]]
    # the kernel counts resident pages per thread and sums them up late: a peak may err by that
    assert all(later >= earlier - 1 for earlier, later in pairwise(peaks))


def test_the_smallest_budget_near_the_best_is_recommended() -> None:
    rows = [
        {"token_budget": budget, "texts_per_second": speed}
        for budget, speed in ((256, 90.0), (512, 97.5), (1024, 100.0), (2048, 99.0))
    ]
    assert recommended(rows) == 512


def test_what_is_compared_and_asked_alone_is_bounded() -> None:
    subject = fake("embedder")
    assert len(embedding_work(subject, ["x"] * 5000).lone) == encoders.LONE_REQUESTS
    assert embedding_work(subject, ["x"]).lone == ("query: x",)
    work = reranking_work([JudgedList("q", tuple("abcdefghij"))] * 500)
    assert sum(work.lists) <= encoders.FIDELITY_ITEMS
    assert len(work.groups) == encoders.LONE_REQUESTS
    assert sum(work.groups) == len(work.lone)
    one = reranking_work([JudgedList("q", ("p",) * 1000)])
    assert one.lists == (1000,)


def test_spreading_takes_from_everywhere() -> None:
    assert spread(list(range(10)), 20) == list(range(10))
    assert spread(list(range(100)), 4) == [0, 25, 50, 75]


def test_the_form_is_the_servers_choice_unless_named(tmp_path: Path, files: ModelFiles) -> None:
    subject = Subject.of(files)
    settings = Settings(home=tmp_path)
    default = planned(subject, files, settings, MACHINE)
    assert default.plan.bulk == Chosen(subject.forms[0], MACHINE.cores, 2048)
    assert default.plan.query is None
    bulk, query = Chosen("onnx:fp32", 2, 1024), Chosen("onnx:int8", 1, 512)
    profile = ModelProfile(
        model=subject.model,
        key=key_of(files, machine=MACHINE),
        tuned="",
        chosen={"bulk": bulk, "query": query},
    )
    write_profile(tmp_path, Profile().with_model(profile))
    tuned = planned(subject, files, settings, MACHINE)
    assert (tuned.plan.bulk, tuned.plan.query) == (bulk, query)
    named = planned(subject, files, settings, MACHINE, form="onnx:int8", threads=3, token_budget=7)
    assert named.plan.bulk == Chosen("onnx:int8", 3, 7)
    assert named.plan.query is None
    off = Settings(home=tmp_path, models=ModelSettings(optimize="off"))
    assert planned(subject, files, off, MACHINE).plan.bulk.form == "onnx:fp32"

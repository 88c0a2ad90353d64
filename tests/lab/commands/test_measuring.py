"""``tune``, ``bench`` and ``eval fidelity``: what they refuse, and how they report.

Measuring itself is tested over fakes in the services, and with real models where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, fake_container

from ondol.cli.invocation import Invocation
from ondol.cli.main import main
from ondol.lab.evaluate.datasets import sample_texts
from ondol.models.library import ModelLibrary
from ondol.models.profile import read_profile

Json = Callable[..., dict[str, Any]]
MODEL = "all-minilm-l6-v2"
RERANKER = "ms-marco-minilm-l12-v2"


@pytest.mark.parametrize(
    "command",
    [
        ("tune", "--quick"),
        ("bench", "embed"),
        ("bench", "rerank"),
        ("bench", "roofline"),
        ("eval", "fidelity"),
    ],
)
def test_a_model_that_was_never_pulled_is_named_with_the_remedy(
    run: Run, command: tuple[str, ...]
) -> None:
    refused = run(*command, "--json")
    assert refused.code == 2
    assert "ondol models pull" in refused.data["error"]["hint"]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("bench", "rerank", "--query", "q"), "--texts"),
        (("bench", "embed", "--sweep", "threads"), "batch"),
        (("tune", "--model"), "--model"),
    ],
)
def test_usage(run: Run, command: tuple[str, ...], word: str) -> None:
    refused = run(*command)
    assert refused.code == 2
    assert word in refused.err


@pytest.fixture
def real(
    models_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Json:
    """Run a command line over the real models; returns its JSON and the exit code in ``exit``."""
    for model in (MODEL, RERANKER):
        if ModelLibrary(models_folder, offline=True).state(model) != "ready":
            pytest.skip(f"{model} is not in {models_folder}; fetch it: ondol models pull {model}")
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_folder)
    monkeypatch.setenv("ONDOL_HOME", str(home))

    def call(*arguments: str) -> dict[str, Any]:
        invocation = Invocation(open_container=fake_container)
        code = main([*arguments, "--json"], invocation=invocation)
        out, err = capfd.readouterr()
        assert out, err
        data: dict[str, Any] = json.loads(out)
        return {**data, "exit": code}

    return call


@pytest.mark.model
def test_a_quick_tuning_and_a_bench_of_what_it_chose(real: Json, tmp_path: Path) -> None:
    (tuned,) = real("tune", "--quick", "--model", MODEL)["models"]
    assert tuned["measured"]
    assert tuned["quick"]
    forms = {row["form"] for row in tuned["evidence"]}
    assert forms >= {"onnx:int8", "onnx:fp32"}
    assert all(row["verdict"] for row in tuned["evidence"])
    chosen = tuned["chosen"]["bulk"]["form"]
    assert read_profile(tmp_path / "home").models[MODEL].chosen["bulk"].form == chosen
    assert (tmp_path / "home/tune" / f"{MODEL}.svg").is_file()
    (again,) = real("tune", "--quick", "--model", MODEL)["models"]
    assert not again["measured"]

    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(sample_texts(["en"])[:20]), "utf-8")
    found = real("bench", "embed", "--texts", str(texts), "--model", MODEL, "--repeats", "1")
    assert found["exit"] == 0
    assert found["form"] == chosen
    assert found["texts"] == 20
    assert {"texts_per_second", "p50_ms", "p99_ms", "peak_rss_mb"} <= set(found)
    fidelity = found["fidelity"]
    assert isinstance(fidelity, dict)
    assert fidelity["cosine_mean"] >= 0.99
    assert fidelity["cosine_min"] >= 0.9
    assert float(str(found["batch_mates"])) >= 0.9995


@pytest.mark.model
def test_the_gate_of_a_real_reranker(real: Json, tmp_path: Path) -> None:
    lists = tmp_path / "beir"
    lists.mkdir()
    corpus = ["The shuttle bus leaves at eight.", "Lunch is at noon.", "Guests need a badge."]
    (lists / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(corpus)),
        "utf-8",
    )
    (lists / "queries.jsonl").write_text('{"_id": "q", "text": "when does the bus leave"}\n')
    (lists / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    command = (
        "eval",
        "fidelity",
        "--model",
        RERANKER,
        "--form",
        "onnx:int8",
        "--dataset",
        str(lists),
    )
    passed = real(*command)
    assert passed["exit"] == 0
    assert passed["passed"]
    (form,) = passed["forms"]
    assert form["band"] == "kept"
    assert form["ndcg_at_10"] == 1.0
    failed = real(*command, "--set", "fidelity.max_loss=0")
    assert failed["exit"] == 3
    assert not failed["passed"]


@pytest.mark.model
def test_a_roofline_places_forms_below_the_peak(real: Json) -> None:
    found = real("bench", "roofline", "--model", MODEL, "--form", "onnx:int8")
    peaks, forms = found["peak_gflops"], found["forms"]
    assert isinstance(peaks, dict)
    assert isinstance(forms, list)
    assert peaks["int8"] > peaks["fp32"] > 0
    assert 0 < forms[0]["share_of_int8_peak"] < 1
    assert found["linear_weights"] == 6 * (4 * 384**2 + 2 * 384 * 1536)

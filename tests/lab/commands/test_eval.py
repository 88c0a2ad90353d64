"""The evaluation commands over a dataset small enough to score by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    corpus = [
        {"_id": "d1", "title": "", "text": "The gate opens at seven."},
        {"_id": "d2", "title": "", "text": "Guests park in bay 42."},
    ]
    queries = [
        {"_id": "q1", "text": "gate opens", "metadata": {"answers": ["seven"]}},
        {"_id": "q2", "text": "guests park", "metadata": {"answers": ["42"]}},
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in corpus), "utf-8")
    (folder / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries), "utf-8")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n", "utf-8")
    return folder


def test_retrieval_scores(dataset: Path, run: Run) -> None:
    scores = run("eval", "retrieval", "--dataset", str(dataset), "--mode", "lexical", "--json").data
    assert scores["ndcg_at_10"] == scores["recall_at_10"] == scores["mrr_at_10"] == 1.0
    assert scores["queries"] == scores["documents"] == 2
    every = run("eval", "retrieval", "--dataset", str(dataset), "--all-modes")
    assert every.code == 0
    assert [line.split()[0] for line in every.out.splitlines()[1:4]] == [
        "hybrid",
        "dense",
        "lexical",
    ]


def test_retrieval_says_how_sure_it_is_and_of_what_kind(dataset: Path, run: Run) -> None:
    arguments = ("eval", "retrieval", "--dataset", str(dataset), "--mode", "lexical")
    scores = run(*arguments, "--items", "--json").data
    assert scores["recall_at_1"] == scores["recall_at_5"] == 1.0
    assert scores["intervals"]["ndcg_at_10"] == [1.0, 1.0]
    assert scores["types"]["keywords"]["queries"] == 2
    assert [item["ranked"][0] for item in scores["items"]] == ["d1", "d2"]
    assert "95 % INTERVAL" in run(*arguments, "--items").out


def test_two_settings_side_by_side(dataset: Path, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    arguments = ("eval", "retrieval", "--dataset", str(dataset))
    against = ("--against", "retrieval.mode=lexical", "--against", "retrieval.fusion=ranks")
    found = run(*arguments, *against, "--report", str(page), "--json").data
    assert found["against"]["settings"] == {
        "retrieval.mode": "lexical",
        "retrieval.fusion": "ranks",
    }
    assert found["against"]["ndcg_at_10"] == 1.0
    gained = found["against"]["differences"]["ndcg_at_10"]["mean"]
    assert gained == pytest.approx(1.0 - found["ndcg_at_10"])
    assert "Against retrieval.mode = lexical" in page.read_text("utf-8")
    assert "BETTER IN RESAMPLES" in run(*arguments, *against).out
    refused = run(*arguments, "--against", "models.embedder=x")
    assert refused.code == 2
    assert "--home" in refused.err
    assert run(*arguments, "--against", "retrieval.fusion=both").code == 2


def test_the_gate_passes_what_is_as_good_and_names_what_is_not(
    dataset: Path, run: Run, tmp_path: Path
) -> None:
    baseline = str(tmp_path / "baseline.json")
    arguments = ("eval", "retrieval", "--dataset", str(dataset), "--mode", "lexical")
    missing = run(*arguments, "--gate", baseline)
    assert missing.code == 2
    assert "--save-baseline" in missing.err
    assert run(*arguments, "--save-baseline", baseline).code == 0
    passed = run(*arguments, "--gate", baseline, "--json")
    assert passed.code == 0
    assert passed.data["gate"]["passed"]
    queries = dataset / "queries.jsonl"
    queries.write_text(queries.read_text("utf-8").replace("guests park", "gate opens"), "utf-8")
    failed = run(*arguments, "--gate", baseline, "--json", "--save-baseline", baseline)
    assert failed.code == 3
    assert not failed.data["gate"]["passed"]
    assert [one["id"] for one in failed.data["gate"]["fallen"]] == ["q2"]
    assert "q2" in failed.err
    assert run(*arguments, "--gate", baseline, "--tolerance", "1").code == 0  # was not replaced
    assert run(*arguments, "--gate", baseline).code == 3


def test_what_was_found_is_kept(dataset: Path, run: Run) -> None:
    assert run("eval", "history", "--json").data == {"evaluations": []}
    run("eval", "retrieval", "--dataset", str(dataset), "--mode", "lexical")
    run("eval", "answers", "--dataset", str(dataset))
    kept = run("eval", "history", "--json").data["evaluations"]
    assert [(one["kind"], one["dataset"]) for one in kept] == [
        ("retrieval", "tiny"),
        ("answers", "tiny"),
    ]
    assert kept[0]["settings"]["retrieval.mode"] == "hybrid"
    assert "retrieval" in run("eval", "history", "-n", "2").out


def test_optimise_prints_the_settings_to_use(run: Run, tmp_path: Path) -> None:
    records = tmp_path / "fruit.jsonl"
    words = [f"fruit{chr(97 + n)}" for n in range(20)]
    rows = [{"_id": word, "text": f"How to grow {word} at home"} for word in words]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    questions = tmp_path / "questions.jsonl"
    asked = [{"question": f"grow {word}", "document": word} for word in words]
    questions.write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    assert run("ingest", str(records), "-c", "fruit").code == 0
    arguments = ("eval", "optimise", "--dataset", str(questions), "-c", "fruit")
    worst = ("--set", "retrieval.mode=dense")
    found = run(*arguments, *worst, "--json").data
    assert found["adopted"]
    assert found["settings"]["retrieval.mode"] != "dense"
    assert found["held_out"] == 10
    told = run(*arguments, *worst)
    assert "[retrieval]" in told.out
    assert 'fusion = "' in told.out
    lexical = ("--set", "retrieval.mode=lexical")
    assert run(*arguments, *lexical).out.endswith("[retrieval]\ntop_k = 3\n")
    kept = run(*arguments, *lexical, "--set", "retrieval.top_k=3")
    assert "keep the settings" in kept.out
    assert run("eval", "optimise", "--dataset", str(questions)).code == 2
    few = run(*arguments, "--json", "--limit", "15")
    assert few.code == 2


def test_calibrate_keeps_what_it_learned_until_it_is_told_to_forget(
    run: Run, tmp_path: Path
) -> None:
    records = tmp_path / "fruit.jsonl"
    words = [f"fruit{chr(97 + n)}" for n in range(20)]
    rows = [{"_id": word, "text": f"How to grow {word}s at home"} for word in words]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    questions = tmp_path / "questions.jsonl"
    asked = [{"question": f"grow {word}", "document": word} for word in words]
    questions.write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    assert run("ingest", str(records), "-c", "fruit").code == 0
    arguments = ("eval", "calibrate", "--dataset", str(questions), "-c", "fruit")
    wrong = ("--set", "retrieval.dense_weight=1.0")
    tried = run(*arguments, *wrong, "--dry-run", "--json").data
    assert tried["accepted"]
    assert tried["held_back"]["questions"] == 10
    assert run("collections", "show", "fruit", "--json").data["calibration"] == {}
    told = run(*arguments, *wrong, "--rerank")
    assert told.code == 0, told.err
    assert "kept with fruit" in told.out
    assert "reranking en" in told.out
    kept = run("collections", "show", "fruit")
    assert "fusion" in kept.out
    assert "reranking en" in kept.out
    history = run("eval", "history", "--json").data["evaluations"]
    assert history[-1]["kind"] == "calibrate"
    assert run("eval", "calibrate", "-c", "fruit", "--remove").code == 0
    assert run("collections", "show", "fruit", "--json").data["calibration"] == {}
    assert run("eval", "calibrate", "--remove").code == 2
    assert run("eval", "calibrate", "-c", "fruit").code == 2
    assert run("eval", "calibrate", "--dataset", str(questions)).code == 2


def test_answers_over_a_folder_ingest_its_corpus(dataset: Path, run: Run) -> None:
    report = run("eval", "answers", "--dataset", str(dataset), "--limit", "1", "--json").data
    assert report["questions"] == 1
    assert report["collection"] == "eval-tiny"
    assert report["model"] == "fake-generator"
    assert "items" not in report
    told = run("eval", "answers", "--dataset", str(dataset), "--items")
    assert "gate opens" in told.out


def test_a_question_file_needs_a_collection(tmp_path: Path, run: Run) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "gate?", "answers": ["seven"]}\n', "utf-8")
    refused = run("eval", "answers", "--dataset", str(questions))
    assert refused.code == 2
    assert "-c NAME" in refused.err


def test_a_folder_that_is_no_dataset(tmp_path: Path, run: Run) -> None:
    refused = run("eval", "retrieval", "--dataset", str(tmp_path), "--json")
    assert refused.code == 2
    assert "corpus.jsonl" in refused.data["error"]["message"]


def test_a_task_is_scored_and_compared(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "labelled.jsonl"
    texts = [("정말 맛있어요 최고예요", "positive"), ("최악이에요 맛없고 별로", "negative")]
    path.write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts)
    )
    arguments = ("eval", "task", "--dataset", str(path), "--task")
    found = run(*arguments, "reviews.sentiment", "--json").data
    assert (found["accuracy"], found["macro_f1"], found["items"]) == (1.0, 1.0, 2)
    assert found["seconds"] > 0
    told = run(*arguments, "reviews.summary", "--baseline", "all", "--items")
    assert told.code == 0, told.err
    assert "ALL" in told.out
    assert "DIFFERENCE" in told.out
    assert "OUTCOME" in told.out
    both = run(*arguments, "reviews.summary", "--baseline", "all", "--json", "--items").data
    assert both["baselines"]["all"]["differences"]["success_rate"] == 0.0
    assert [len(runs) for runs in both["runs_of"].values()] == [1, 1]
    last = run("eval", "history", "--json").data["evaluations"][-1]
    assert (last["kind"], last["task"], last["dataset"]) == (
        "task",
        "reviews.summary",
        "labelled.jsonl",
    )
    assert "reviews.sentiment: labelled.jsonl" in run("eval", "history").out


def test_a_task_that_cannot_be_evaluated_so_is_told_first(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text(json.dumps({"text": "좋아요", "label": "positive"}) + "\n")
    arguments = ("eval", "task", "--dataset", str(path), "--task")
    refused = run(*arguments, "reviews.sentiment", "--baseline", "no-retrieval")
    assert refused.code == 2
    assert "baseline" in refused.err
    assert run(*arguments, "reviews.sentimental").code == 2
    assert run("eval", "task", "--task", "x", "--dataset", str(tmp_path / "none")).code == 2
    path.write_text(json.dumps({"text": "좋아요", "label": "mixed"}) + "\n")
    warned = run(*arguments, "reviews.sentiment")
    assert "mixed (1)" in warned.err

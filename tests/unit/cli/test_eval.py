"""The evaluation commands over a dataset small enough to score by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Run


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
    assert [line.split()[0] for line in every.out.splitlines()[1:]] == [
        "hybrid",
        "dense",
        "lexical",
    ]


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

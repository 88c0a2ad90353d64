from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run


def test_tasks_are_listed_shown_and_checked(run: Run, root: Path, tmp_path: Path) -> None:
    assert "reviews.summary" in run("task", "list").out
    shown = run("task", "show", "legal.search", "--json").data
    assert shown["input"]["required"] == ["query"]
    assert run("task", "check", str(root / "examples/packs/helpdesk")).code == 0
    (tmp_path / "pack.toml").write_text("name = 'Bad'\n")
    bad = run("task", "check", str(tmp_path), "--json")
    assert bad.code == 3
    assert bad.data["sound"] is False
    assert all(one["remedy"] for one in bad.data["problems"])


def test_a_task_runs_on_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"reviews": [{"id": "a", "text": "정말 맛있어요"}]}))
    done = run("task", "run", "reviews.sentiment", str(path), "--json")
    assert done.code == 0
    assert done.data["result"]["counted"] == 1
    assert "정말" not in run("task", "run", "reviews.summary", str(path)).err


def test_a_bad_input_is_told_before_a_model_is_loaded(run: Run) -> None:
    bad = run("task", "run", "legal.search", "--field", "qery=x")
    assert bad.code == 2
    assert "query is missing" in bad.err


def test_a_classifier_is_trained_in_place_of_the_shipped(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    rows = [
        {
            "text": f"{i} {'최고 맛있어요' if i % 2 else '최악 별로'}",
            "label": "positive" if i % 2 else "negative",
        }
        for i in range(60)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    done = run("task", "train", "reviews.sentiment", str(path), "--language", "ko", "--json")
    assert done.code == 0
    assert done.data["accuracy"] > 0.9
    assert Path(done.data["path"]).is_file()

"""The main job with real models: documents in, an answer with citations that hold out."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from tests.e2e.command import Command, Running, ended

pytestmark = pytest.mark.model

QUESTION = "생활안정자금 대출의 이율은 얼마인가요?"


def check_citations(command: Command, answer: dict[str, object]) -> None:
    """Every quote stands verbatim where its citation says, on the page that it says."""
    citations = answer["citations"]
    assert isinstance(citations, list)
    assert citations
    for citation in citations:
        shown = command.json("documents", "show", citation["document"], "-c", "demo")
        start, end = citation["start"], citation["end"]
        assert shown["text"][start:end] == citation["quote"]
        assert citation["verified"]
        if shown["pages"]:
            page = next(p for p in shown["pages"] if p["number"] == citation["page"])
            assert page["start"] <= start < page["end"]


def test_the_flagship_question_is_answered_and_cited(demo: Command) -> None:
    done = demo.run("ask", QUESTION, "-c", "demo", "--json", "--require-citation")
    assert re.search(r"^generator: qwen2\.5-coder-\S+ \(.+\)$", done.stderr, re.MULTILINE)
    answer = json.loads(done.stdout)
    assert "1.9%" in answer["answer"]
    assert any(c["document"] == "work_rules_ko.pdf" for c in answer["citations"])
    assert answer["usage"]["prompt_tokens"] > 100
    assert answer["usage"]["completion_tokens"] > 0
    check_citations(demo, answer)


def test_people_see_the_answer_then_its_citations(demo: Command) -> None:
    done = demo.run("ask", QUESTION, "-c", "demo")
    assert "1.9%" in done.stdout.splitlines()[0]
    assert re.search(
        r"^\[1\] .+, p\. 10  work_rules_ko\.pdf \[\d+:\d+\]$", done.stdout, re.MULTILINE
    )
    assert re.search(r"^    “.+1\.9%.+”$", done.stdout, re.MULTILINE)
    assert "verified" in done.stderr


def test_what_is_in_no_document_is_not_answered(demo: Command) -> None:
    answer = demo.json("ask", "화성의 위성은 몇 개인가요?", "-c", "demo")
    assert answer["abstained"]
    assert answer["citations"] == []


def test_a_second_ingest_embeds_nothing(demo: Command) -> None:
    report = demo.json("ingest", "examples/demo/work_rules_ko.pdf", "-c", "demo")
    assert (report["unchanged"], report["added"], report["chunks"]) == (1, 0, 0)


def test_ctrl_c_ends_an_answer_cleanly(demo: Command) -> None:
    with demo.start("ask", QUESTION, "-c", "demo") as running:
        running.wait_for("^generator: ")
        children = running.children()
        running.stop(signal.SIGINT, code=130)
        assert all(ended(pid) for pid in children)


def test_a_kill_in_mid_ingest_loses_nothing_that_was_stored(demo: Command, tmp_path: Path) -> None:
    records = tmp_path / "many.jsonl"
    with records.open("w", encoding="utf-8") as file:
        for number in range(600):
            text = f"Room {number} is on floor {number % 7}. " * 8
            file.write(json.dumps({"id": f"room-{number}", "text": text}) + "\n")
    with demo.start("ingest", str(records), "-c", "rooms") as running:
        kept = _wait_until_some_are_stored(demo, running)
        running.process.kill()
    assert demo.json("doctor")["store"]["problems"] == []
    report = demo.json("ingest", str(records), "-c", "rooms")
    assert report["unchanged"] >= kept
    assert report["unchanged"] + report["added"] == 600
    assert demo.json("collections", "show", "rooms")["documents"] == 600
    again = demo.json("ingest", str(records), "-c", "rooms")
    assert (again["unchanged"], again["chunks"]) == (600, 0)
    assert demo.json("doctor")["ok"]


def _wait_until_some_are_stored(command: Command, running: Running) -> int:
    while running.process.poll() is None:
        for collection in command.json("collections", "list")["collections"]:
            if collection["name"] == "rooms" and collection["documents"]:
                return int(collection["documents"])
    raise AssertionError(f"it ended before it could be killed:\n{running.said}")

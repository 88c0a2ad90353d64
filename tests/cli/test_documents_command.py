"""Ingest, search, ask and the listings, through the command as users type it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run


def test_ingest_reports_what_it_did(notes: Path, run: Run) -> None:
    (notes / "parking.txt").write_text("Guests park in bay 43.\n", "utf-8")
    (notes / "new.txt").write_text("The kitchen closes at nine.\n", "utf-8")
    report = run("ingest", str(notes), "-c", "notes", "--json")
    assert report.code == 0
    assert report.data["added"] == 1
    assert report.data["updated"] == 1
    assert report.data["unchanged"] == 1
    assert report.data["failed"] == []
    assert report.data["chunks"] == 2
    assert report.data["seconds"] > 0
    assert run("ingest", str(notes), "-c", "notes").out.startswith("0 added, 0 updated, 3 unch")


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(notes: Path, run: Run) -> None:
    (notes / "broken.pdf").write_bytes(b"%PDF-1.7 nothing else")
    (notes / "good.txt").write_text("The gate opens at seven.\n", "utf-8")
    report = run("ingest", str(notes), "-c", "notes", "--json")
    assert report.code == 1
    assert report.data["added"] == 1
    (failure,) = report.data["failed"]
    assert failure["source"].endswith("broken.pdf")
    assert failure["code"]
    assert failure["hint"]
    assert "error: " in report.err
    assert "hint: " in report.err


def test_a_path_that_is_not_there(run: Run) -> None:
    missing = run("ingest", "/nowhere/at/all", "-c", "notes", "--json")
    assert missing.code == 2
    assert missing.data["error"]["code"] == "not_found"


def test_search_hits_point_into_the_stored_text(notes: Path, run: Run) -> None:
    found = run("search", "annual leave", "-c", "notes", "--json", "-k", "1")
    assert found.code == 0
    (hit,) = found.data["hits"]
    assert hit["document"] == "leave.md"
    assert set(hit) >= {"chunk", "page", "start", "end", "score", "text", "metadata"}
    stored = run("documents", "show", "leave.md", "-c", "notes", "--json").data
    assert stored["text"][hit["start"] : hit["end"]] == hit["text"]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_every_mode_searches(mode: str, notes: Path, run: Run) -> None:
    found = run("search", "bay 42", "-c", "notes", "--mode", mode, "--no-rerank", "--json")
    assert found.code == 0
    assert found.data["mode"] == mode
    assert not found.data["reranked"]
    assert "parking.txt" in {hit["document"] for hit in found.data["hits"]}


def test_search_for_people(notes: Path, run: Run) -> None:
    found = run("search", "bay", "-c", "notes", "--mode", "lexical", "--no-rerank")
    assert "bay 42 behind the house" in found.out
    assert "parking.txt [0:39]" in found.out
    nothing = run("search", "zebra", "-c", "notes", "--mode", "lexical", "--no-rerank")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no passage found" in nothing.err


def test_filters_are_typed(tmp_path: Path, run: Run) -> None:
    records = tmp_path / "reviews.jsonl"
    records.write_text(
        '{"id": "r1", "text": "Good noodle soup.", "metadata": {"rating": 5, "town": "5"}}\n'
        '{"id": "r2", "text": "Cold noodle soup.", "metadata": {"rating": 2, "town": "Gwangju"}}\n',
        "utf-8",
    )
    assert run("ingest", str(records), "-c", "reviews").code == 0

    def documents(*conditions: str) -> set[str]:
        options = [word for condition in conditions for word in ("--filter", condition)]
        found = run("search", "noodle", "-c", "reviews", "--mode", "lexical", "--json", *options)
        return {hit["document"] for hit in found.data["hits"]}

    assert documents() == {"r1", "r2"}
    assert documents("rating=5") == {"r1"}
    assert documents('rating={"lt": 5}') == {"r2"}
    assert documents("town=Gwangju") == {"r2"}
    assert documents('town="5"') == {"r1"}
    assert documents('rating={"lt": 5}', 'town="5"') == set()


def test_ask_answers_with_the_contracts_keys(notes: Path, run: Run) -> None:
    answer = run("ask", "How many days of annual leave?", "-c", "notes", "--json")
    assert answer.code == 0
    assert "generator: fake-generator" in answer.err
    said = answer.data
    assert set(said) >= {"answer", "citations", "abstained", "usage", "timings"}
    assert set(said["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert set(said["timings"]) == {"queue_ms", "retrieve_ms", "ttft_ms", "total_ms"}
    for citation in said["citations"]:
        stored = run("documents", "show", citation["document"], "-c", "notes", "--json").data
        assert stored["text"][citation["start"] : citation["end"]] == citation["quote"]
        assert citation["verified"]


def test_ask_without_an_answer_fails_only_when_a_citation_is_required(
    notes: Path, run: Run
) -> None:
    question = "xylophone zebra quasar?"
    plain = run("ask", question, "-c", "notes", "--set", "answer.min_relevance=1")
    assert plain.code == 0
    assert plain.out.strip()
    required = run(
        "ask", question, "-c", "notes", "--require-citation", "--json",
        "--set", "answer.min_relevance=1",
    )  # fmt: skip
    assert required.code == 3
    assert required.data["abstained"]
    assert "no verified citation" in required.err


def test_collections(notes: Path, run: Run) -> None:
    (listed,) = run("collections", "list", "--json").data["collections"]
    assert listed["name"] == "notes"
    assert listed["documents"] == 2
    assert "notes" in run("collections", "list").out
    assert run("collections", "show", "notes", "--json").data["chunks"] == 2
    assert "documents" in run("collections", "show", "notes").out
    wrong = run("collections", "show", "note")
    assert wrong.code == 2
    assert "notes" in wrong.err


def test_deleting_asks_first(notes: Path, run: Run) -> None:
    refused = run("collections", "delete", "notes")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert run("collections", "delete", "notes", "--yes", "--json").data == {
        "deleted": "notes",
        "documents": 2,
    }
    assert run("collections", "list").err.startswith("no collection yet")


def test_documents(notes: Path, run: Run) -> None:
    listed = run("documents", "list", "-c", "notes", "--json").data["documents"]
    assert [document["document"] for document in listed] == ["leave.md", "parking.txt"]
    page = run("documents", "list", "-c", "notes", "--limit", "1")
    assert "--after leave.md" in page.err
    after = run("documents", "list", "-c", "notes", "--after", "leave.md", "--json").data
    assert [document["document"] for document in after["documents"]] == ["parking.txt"]
    shown = run("documents", "show", "parking.txt", "-c", "notes")
    assert shown.out == "Guests park in bay 42 behind the house.\n"


def test_deleting_documents_is_all_or_nothing(notes: Path, run: Run) -> None:
    wrong = run("documents", "delete", "leave.md", "nothing.md", "-c", "notes", "--yes")
    assert wrong.code == 2
    assert len(run("documents", "list", "-c", "notes", "--json").data["documents"]) == 2
    gone = run("documents", "delete", "leave.md", "-c", "notes", "--yes", "--json").data
    assert gone == {"deleted": ["leave.md"], "chunks": 1}
    assert len(run("documents", "list", "-c", "notes", "--json").data["documents"]) == 1

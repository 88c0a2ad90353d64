from __future__ import annotations

import re
from html.parser import HTMLParser

from ondol.lab.evaluate.answer_evaluation import score
from ondol.lab.evaluate.datasets import Query
from ondol.lab.evaluate.html_report import html_report
from ondol.lab.evaluate.retrieval_evaluation import RetrievalEvaluation, RetrievalScores

EVIL = "<script>alert('연차')</script>"


class Tags(HTMLParser):
    """Collects tags and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def scores(*ranked: str) -> RetrievalScores:
    query = Query("q<1>", EVIL, {"a": 1.0})
    return RetrievalScores((score(query, ranked),), seconds=0.1)


def test_the_page_stands_alone_and_escapes_what_data_says() -> None:
    evaluation = RetrievalEvaluation(
        dataset="set & co",
        queries=1,
        documents=2,
        modes={"hybrid": scores("x", "a"), "dense": scores("x")},
        against=scores("a"),
        changed={"retrieval.fusion": "ranks"},
    )
    page = html_report(evaluation, "hybrid", moment="2026-01-01", settings={"k": EVIL})
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.seen
    assert not tags.seen & {"link", "img", "iframe"}
    assert re.search(r"(?:src|href)=|url\(|@import", page) is None
    assert "&lt;script&gt;" in page
    assert "set &amp; co" in page
    assert "Against retrieval.fusion = ranks" in page
    for shown in ("Recall@1", "Recall@5", "0.6309", "+0.3691"):
        assert shown in page

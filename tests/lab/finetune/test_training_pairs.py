"""Pairs: read, merged, split by their text alone, and no judging question among those trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.core.errors import InvalidInput
from ondol.lab.evaluate.datasets import Query
from ondol.lab.finetune.training_pairs import (
    TextPiece,
    apart,
    digest_of,
    in_share,
    made_pairs,
    read_pairs,
    split,
)


def queries(count: int, start: int = 0) -> list[Query]:
    return [
        Query(str(n), f"question {n:04} about {'xyzuvw'[n % 6] * 9} {n * 7919}", {f"d{n}": 1.0})
        for n in range(start, start + count)
    ]


def test_lines_of_one_query_are_one_pair(tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    rows = [
        {"query": "annual leave", "documents": ["a"]},
        {"query": "annual leave", "documents": ["b"]},
        {"question": "sick note", "document": "c", "id": "q9"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    first, second = read_pairs(path)
    assert first.relevant == {"a": 1.0, "b": 1.0}
    assert (second.id, second.text, dict(second.relevant)) == ("q9", "sick note", {"c": 1.0})


@pytest.mark.parametrize(
    ("row", "said"),
    [({"query": "a"}, "line 1 has no documents"), ({"documents": ["a"]}, "line 1 has no query")],
)
def test_a_line_without_both_is_named(tmp_path: Path, row: dict[str, object], said: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row), "utf-8")
    with pytest.raises(InvalidInput, match=said):
        read_pairs(path)


@settings(deadline=None)
@given(st.integers(0, 3), st.floats(0.3, 0.6))
def test_the_split_hangs_on_text_and_seed_alone(seed: int, share: float) -> None:
    many = queries(120)
    found = split(many, share=share, seed=seed)
    again = split(list(reversed(many)), share=share, seed=seed)
    assert {q.text for q in found.held_back} == {q.text for q in again.held_back}
    assert not {q.text for q in found.training} & {q.text for q in found.held_back}
    assert len(found.training) + len(found.held_back) + found.overlapping == 120
    assert all(in_share(q.text, share=share, seed=seed) for q in found.held_back)


def test_training_text_that_repeats_a_judging_question_is_left_out() -> None:
    held = queries(30)
    long = Query("x", f"Before. {held[3].text} And much after it.", {"d": 1.0})
    near = Query("y", held[4].text.replace(" ", ""), {"d": 1.0})
    free = queries(5, start=500)
    found = apart([long, *free, near], held)
    assert found.training == tuple(free)
    assert found.overlapping == 2


def test_too_few_questions_cannot_judge() -> None:
    with pytest.raises(InvalidInput, match="19 queries are held back"):
        apart(queries(5, start=100), queries(19))
    with pytest.raises(InvalidInput, match="no pair is left"):
        apart(queries(20), queries(20))


def test_the_digest_is_of_what_is_said_not_of_its_order() -> None:
    many = queries(5)
    assert digest_of(many) == digest_of(list(reversed(many)))
    assert digest_of(many) != digest_of(many[1:])


def piece(number: int, *, title: str = "", heading: str = "") -> TextPiece:
    bare = (
        f"The first sentence of passage {number} is here. "
        f"Its second sentence speaks of {number} things. The third one ends it."
    )
    return TextPiece(number, f"d{number}", title, heading, bare, f"{title}\n{bare}")


@given(st.integers(0, 5), st.integers(0, 40))
def test_made_pairs_ask_for_what_stands_in_their_document(seed: int, limit: int) -> None:
    pieces = [piece(n, title=f"Title number {n}", heading="Rules > Leave") for n in range(12)]
    made = made_pairs(pieces, limit=limit, seed=seed)
    assert made == made_pairs(pieces, limit=limit, seed=seed)
    assert len(made) <= limit
    by_document = {p.document: p for p in pieces}
    for pair in made:
        source = by_document[pair.document]
        assert pair.query in source.bare or pair.query == "Leave"
        if pair.query in source.bare:
            kept = "".join(pair.passage.split())
            assert kept in "".join(f"{source.title}{source.bare}".split()) or (
                pair.query not in pair.passage
            )


def test_a_title_that_many_share_asks_for_nothing() -> None:
    shared = made_pairs([piece(n, title="Minutes") for n in range(4)], limit=50, seed=0)
    assert "Minutes" not in {pair.query for pair in shared}
    own = made_pairs([piece(n, title=f"Minutes of {n}") for n in range(4)], limit=50, seed=0)
    assert "Minutes of 2" in {pair.query for pair in own}

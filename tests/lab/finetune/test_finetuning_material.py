"""What a run learns from, and the exam: over the real store and search, with fake vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondol.app.container import Container
from ondol.core.errors import GateFailed, InvalidInput
from ondol.lab.evaluate.datasets import Query
from ondol.lab.evaluate.statistics import difference
from ondol.lab.finetune.exam import ExamVerdict, ModeVerdict, examine, modes_of
from ondol.lab.finetune.finetuning import revectored
from ondol.lab.finetune.training_pairs import (
    MadePair,
    MaterialMaker,
    Mining,
    best_of,
    pieces_of,
    read_material,
    write_material,
)

TOPICS = ("leave days", "sick note", "train expenses", "hotel receipt", "door key", "garden guest")


@pytest.fixture
async def notes(container: Container) -> Container:
    records = [
        {"_id": f"d{n}", "title": f"Rule {n}", "text": f"{topic} are told of in rule {n}."}
        for n, topic in enumerate(TOPICS)
    ]
    await container.ingest.ingest_records("notes", records)
    return container


async def test_wrong_passages_are_near_and_nobody_judged_them(notes: Container) -> None:
    pieces = list(pieces_of(notes.store, "notes"))
    assert [piece.document for piece in pieces] == [f"d{n}" for n in range(6)]
    assert pieces[0].text == "Rule 0\nleave days are told of in rule 0."
    mining = Mining(mode="dense", skip=1, depth=6, keep=2, seed=1)
    maker = MaterialMaker(notes.retrieval, "notes", pieces, mining=mining)
    found = await maker.from_pairs(
        [
            Query("1", "sick note", {"d1": 1.0, "d4": 1.0}),
            Query("2", "nothing here", {"elsewhere": 1.0}),
        ],
        [MadePair("hotel", "a receipt", "d3")],
    )
    assert found.unknown == 1
    judged, made = found.items
    assert {found.passages[at] for at in judged.positives} == {pieces[1].text, pieces[4].text}
    assert len(judged.negatives) == 2
    assert not set(judged.negatives) & set(judged.positives)
    assert [found.passages[at] for at in made.positives] == ["a receipt"]
    assert pieces[3].text not in {found.passages[at] for at in made.negatives}


async def test_material_is_kept_as_it_was(notes: Container, tmp_path: Path) -> None:
    pieces = list(pieces_of(notes.store, "notes"))
    maker = MaterialMaker(notes.retrieval, "notes", pieces, mining=Mining(mode="dense", skip=0))
    made = await maker.from_pairs([Query("1", "sick note", {"d1": 1.0})])
    path = tmp_path / "material.json"
    assert read_material(path) is None
    write_material(path, made)
    assert read_material(path) == made
    path.write_text(path.read_text("utf-8")[:-9], "utf-8")
    assert read_material(path) is None


def test_of_a_long_document_the_passage_that_shares_most_is_right() -> None:
    texts = ["about guests", "the garden gate is shut at night", "other things"]
    assert best_of("when is the garden gate shut", [0, 1, 2], texts) == 1
    assert best_of("zzz", [2, 0], texts) == 0  # a tie: the first of the document


async def test_another_embedders_vectors_change_nothing_but_the_ranking(notes: Container) -> None:
    pieces = list(pieces_of(notes.store, "notes"))
    heard: list[tuple[int, int]] = []
    view = await revectored(
        notes.store, "notes", pieces, notes.embedding, told=lambda d, t: heard.append((d, t))
    )
    assert heard == [(6, 6)]
    queries = [Query(str(n), topic, {f"d{n}": 1.0}) for n, topic in enumerate(TOPICS)]
    same = await examine(
        notes.retrieval,
        notes.retrieval_over(view, notes.embedding),
        "notes",
        queries,
        modes=modes_of("hybrid"),
        now=lambda: 0.0,
    )
    assert same.passed
    assert not same.certain
    assert {m: v.difference.mean for m, v in same.modes.items()} == {"dense": 0.0, "hybrid": 0.0}
    with pytest.raises(InvalidInput):
        view.search_vectors("notes", np.zeros(64, np.float32), limit=3, filter={"a": 1})


def verdict(gains: list[float]) -> ExamVerdict:
    base = [0.5] * len(gains)
    figures = {"ndcg_at_10": 0.5}
    mode = ModeVerdict(
        base=figures,
        tuned={"ndcg_at_10": 0.5 + sum(gains) / len(gains)},
        difference=difference(base, [0.5 + gain for gain in gains]),
    )
    return ExamVerdict(len(gains), {"dense": mode})


def test_a_model_that_finds_less_is_refused() -> None:
    verdict([0.0, 0.1, 0.2]).enforce()
    assert verdict([0.1, 0.1, 0.2]).certain
    with pytest.raises(GateFailed, match="dense 0.5000 to 0.4667"):
        verdict([0.0, -0.2, 0.1]).enforce()

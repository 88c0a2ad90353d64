"""Settings are chosen on one half of the questions and decided on by the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondol.app.container import Container
from ondol.core.errors import InvalidInput
from ondol.lab.evaluate.cut_optimiser import Optimiser
from ondol.lab.evaluate.datasets import Query, halves
from ondol.lab.evaluate.retrieval_evaluation import ask_all

WORDS = [
    *("사과", "배추", "감귤", "포도", "수박", "참외", "딸기", "자두", "살구", "앵두"),
    *("매실", "대추", "석류", "유자", "모과", "복숭아", "무화과", "오디", "다래", "밤나무"),
]


@pytest.fixture
async def queries(container: Container) -> list[Query]:
    rows = [{"id": word, "text": f"{word}를 심고 가꾸는 법"} for word in WORDS]
    await container.ingest.ingest_records("fruit", rows)
    return [Query(word, f"{word}의 재배는?", {word: 1.0}) for word in WORDS]


async def test_the_better_leg_is_found_and_the_held_out_half_agrees(
    container: Container, queries: list[Query]
) -> None:
    """The fake embedder sees whole words and so no particles, which keywords are cut from."""
    current = container.settings.retrieval.model_copy(update={"mode": "dense"})
    told: list[tuple[int, int]] = []
    optimiser = Optimiser(container.retrieval, now=lambda: 0.0)
    found = await optimiser.optimise(
        container.store.collection("fruit"),
        queries,
        current,
        told=lambda done, total, _: told.append((done, total)),
    )
    assert found.adopted
    assert not found.recut
    assert found.settings.mode != "dense"
    assert found.differences["ndcg_at_10"].mean > 0
    assert found.chosen_on == found.held_out == len(queries) // 2
    assert found.trials[0].settings == current
    report = found.as_json()
    assert report["settings"]["retrieval.mode"] == found.settings.mode
    assert len(report["trials"]) == len(found.trials) >= 10
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert all(done <= total for done, total in told)
    _, deciding = halves(queries)
    again = await ask_all(
        container.retrieval.under(found.settings),
        "fruit",
        deciding,
        mode=found.settings.mode,
        rerank=False,
        now=lambda: 0.0,
    )
    assert again.figures() == found.after.figures()


async def test_what_is_best_already_stays(container: Container, queries: list[Query]) -> None:
    current = container.settings.retrieval.model_copy(update={"mode": "lexical"})
    kept = container.store.collection("fruit")
    found = await Optimiser(container.retrieval, now=lambda: 0.0).optimise(kept, queries, current)
    assert not found.adopted
    assert found.settings == current


async def test_fewer_hits_are_enough_where_none_is_missed(
    container: Container, queries: list[Query]
) -> None:
    """Every document shares words with these questions, and its own with one of them."""
    current = container.settings.retrieval.model_copy(update={"mode": "lexical"})
    asked = [replace(one, text=f"{one.id}를 심고 가꾸기") for one in queries]
    kept = container.store.collection("fruit")
    found = await Optimiser(container.retrieval, now=lambda: 0.0).optimise(kept, asked, current)
    assert not found.adopted
    assert found.settings == current.model_copy(update={"top_k": 3})
    assert found.depth.wanted.recall == found.depth.now.recall == 1.0
    assert 0 < found.depth.wanted.tokens < found.depth.now.tokens


async def test_reranking_is_tried_where_there_is_a_reranker(
    container: Container, queries: list[Query]
) -> None:
    current = container.settings.retrieval
    optimiser = Optimiser(container.retrieval, now=lambda: 0.0, rerank=True)
    kept = container.store.collection("fruit")
    found = await optimiser.optimise(kept, queries, current)
    assert {trial.settings.rerank for trial in found.trials} == {"auto", "off", "on"}


def test_halves_are_drawn_alike_and_share_nothing() -> None:
    drawn = [Query(str(n), "q", {"d": 1.0}) for n in range(17)]
    one, other = halves(drawn)
    assert halves(drawn) == (one, other)
    assert {q.id for q in one} | {q.id for q in other} == {q.id for q in drawn}
    assert len(one) + len(other) == 17
    with pytest.raises(InvalidInput, match="15 questions"):
        halves(drawn[:15])

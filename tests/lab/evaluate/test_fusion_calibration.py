"""Weights are learned on one half of the questions and decided on by the other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.app.container import Container
from ondol.core.errors import InvalidInput
from ondol.lab.evaluate.datasets import Query, halves
from ondol.lab.evaluate.fusion_calibration import (
    FEWEST_TO_FIT,
    MARGIN,
    WEIGHTS,
    Calibrator,
    Sample,
    decide,
    fixed_weight,
    rerank_gains,
    weight_by_query,
)
from ondol.lab.evaluate.retrieval_evaluation import ask_all
from ondol.search.calibration import CollectionCalibration
from ondol.search.query_words import NAMES
from ondol.store.calibration_rows import CalibrationStore

WORDS = [f"fruit{chr(97 + n)}" for n in range(20)]


def peaked(best: float, *, features: float = 0.0) -> Sample:
    """A question on which the weight ``best`` is the best, and the further from it the worse."""
    curve = tuple(1 - abs(weight - best) for weight in WEIGHTS)
    return Sample((features,) * len(NAMES), dense=curve[-1], lexical=curve[0], curve=curve)


def any_sample(chance: random.Random) -> Sample:
    """A question about which nothing agrees with anything."""
    return Sample(
        tuple(chance.gauss(0, 2) for _ in NAMES),
        dense=chance.random(),
        lexical=chance.random(),
        curve=tuple(chance.random() for _ in WEIGHTS),
    )


@given(st.integers(0, 10_000), st.integers(8, 70), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_what_is_accepted_is_never_below_a_leg_or_what_is_set(
    seed: int, count: int, default: float
) -> None:
    chance = random.Random(seed)
    learning = [any_sample(chance) for _ in range(count)]
    found = decide(learning, [any_sample(chance) for _ in range(count)], default=default)
    held = found.held_back
    after = held.default + found.against_default.mean
    if found.accepted:
        assert after >= max(held.dense, held.lexical) - MARGIN - 1e-9
        assert after >= held.default - 1e-9
    assert 0 <= found.weight.dense <= 1


def test_the_weight_that_suits_the_questions_is_found() -> None:
    found = decide([peaked(0.3)] * 10, [peaked(0.3)] * 10, default=0.5)
    assert found.weight.dense == pytest.approx(0.3)
    assert found.accepted
    assert found.against_default.mean == pytest.approx(0.2)


def test_what_is_set_stays_where_nothing_is_better() -> None:
    assert fixed_weight([peaked(0.5)] * 10, default=0.5) == 0.5
    assert fixed_weight([Sample((0.0,) * 8, 1, 1, (1.0,) * 21)] * 9, default=0.4) == 0.4
    assert not decide([peaked(0.5)] * 10, [peaked(0.5)] * 10, default=0.5).accepted


def test_a_weight_the_other_half_does_not_confirm_is_refused() -> None:
    found = decide([peaked(0.2)] * 10, [peaked(0.8)] * 10, default=0.5)
    assert not found.accepted
    assert "below" in found.reason


def drawn(count: int, *, seed: int) -> list[Sample]:
    """Questions whose features tell which leg they want."""
    chance = random.Random(seed)
    signs = [chance.choice((-1.0, 1.0)) for _ in range(count)]
    return [peaked(0.5 + 0.4 * sign, features=sign) for sign in signs]


def test_a_weight_by_query_is_learned_where_the_query_tells() -> None:
    found = decide(drawn(120, seed=1), drawn(120, seed=2), default=0.5)
    assert found.accepted
    assert found.weight.by_query is not None
    assert found.against_fixed is not None
    assert found.against_fixed.low > 0
    assert found.weight.by_query.weight((1.0,) * len(NAMES)) > 0.7
    assert found.weight.by_query.weight((-1.0,) * len(NAMES)) < 0.3


def test_a_weight_by_query_that_does_not_pay_is_not_used() -> None:
    chance = random.Random(3)
    blind = [peaked(chance.choice((0.1, 0.9)), features=chance.gauss(0, 1)) for _ in range(240)]
    found = decide(blind[:120], blind[120:], default=0.5)
    assert found.weight.by_query is None
    few = drawn(FEWEST_TO_FIT - 1, seed=4)
    assert weight_by_query(few, middle=0.5) is None


@pytest.fixture
async def queries(container: Container) -> list[Query]:
    rows = [{"id": word, "text": f"How to grow {word}s at home"} for word in WORDS]
    await container.ingest.ingest_records("fruit", rows)
    return [Query(word, f"grow {word}", {word: 1.0}) for word in WORDS]


async def test_what_is_learned_is_what_search_then_does(
    container: Container, queries: list[Query]
) -> None:
    """The fake embedder sees whole words and so no plurals, which keywords are cut from."""
    told: list[tuple[int, int]] = []
    current = container.settings.retrieval.model_copy(update={"dense_weight": 1.0})
    calibrator = Calibrator(container.retrieval, container.store, current)
    found = await calibrator.learn("fruit", queries, told=lambda d, t: told.append((d, t)))
    assert told == [(n, len(queries)) for n in range(1, len(queries) + 1)]
    assert found.accepted
    assert found.weight.dense < 1
    CalibrationStore(container.store.database).set(
        "fruit", CollectionCalibration(found.weight).as_json()
    )
    _, deciding = halves(queries)
    scores = await ask_all(
        container.retrieval, "fruit", deciding, mode="hybrid", rerank=False, now=lambda: 0.0
    )
    assert scores.figures()["ndcg_at_10"] == pytest.approx(found.held_back.fixed)


async def test_too_few_questions_are_refused(container: Container, queries: list[Query]) -> None:
    calibrator = Calibrator(container.retrieval, container.store, container.settings.retrieval)
    with pytest.raises(InvalidInput, match="15 questions"):
        await calibrator.learn("fruit", queries[:15])


async def test_reranking_is_judged_language_by_language(
    container: Container, queries: list[Query]
) -> None:
    korean = [Query(f"k{n}", f"{n}번 과일의 재배", {WORDS[n]: 1.0}) for n in range(3)]
    found = await rerank_gains(
        container.retrieval, "fruit", [*queries, *korean], model="m", now=lambda: 0.0
    )
    assert set(found) == {"en"}  # three questions say nothing of Korean
    assert found["en"].questions == len(queries)
    assert found["en"].helps == (found["en"].low > 0)
    assert found["en"].low <= found["en"].gain <= found["en"].high

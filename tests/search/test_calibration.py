"""What was measured for a collection is kept with it, and decides how it is searched."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ondol.app.container import Container
from ondol.core.errors import NotFound
from ondol.core.types import Hit
from ondol.search.calibration import (
    NOTHING,
    CollectionCalibration,
    FusionWeight,
    RerankVerdict,
    calibration_of,
)
from ondol.search.lookups import Ranking
from ondol.search.query_words import GREATEST, LEAST, NAMES, QueryWeight, features_of
from ondol.store.calibration_rows import CalibrationStore

FULL = CollectionCalibration(
    fusion=FusionWeight(
        0.35,
        by_query=QueryWeight(
            middle=0.4,
            swing=0.2,
            bias=0.1,
            coefficients=(0.5,) * len(NAMES),
            centres=(1.0,) * len(NAMES),
            scales=(2.0,) * len(NAMES),
        ),
        figures={"learned_on": 12},
    ),
    rerank={"en": RerankVerdict("fake-reranker", True, 0.05, 0.01, 0.09, 40)},
)
ROWS = [
    {"id": "meal", "text": "야근 식대는 21시를 넘겨 일하면 13,500원을 지급한다."},
    {"id": "leave", "text": "연차 휴가는 1년에 15일이다."},
    {"id": "bus", "text": "The shuttle bus leaves the station at 7:40 every morning."},
]


@pytest.fixture
async def filled(container: Container) -> Container:
    await container.ingest.ingest_records("c", ROWS)
    return container


def test_it_goes_through_json_and_back() -> None:
    assert calibration_of(json.loads(json.dumps(FULL.as_json()))) == FULL
    assert NOTHING.as_json() == {}


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {**FULL.as_json(), "recipe": "0"},
        {"recipe": "1", "fusion": {"dense": "much"}},
        {"recipe": "1", "rerank": [1]},
        {"recipe": "1", "fusion": {"dense": 7.0}},
        {"recipe": "1", "fusion": {"dense": 0.5, "by_query": {"middle": 0.5}}},
    ],
)
def test_what_cannot_be_used_counts_as_not_measured(kept: dict[str, object]) -> None:
    assert calibration_of(kept) == NOTHING


async def test_a_measured_weight_goes_before_the_setting(filled: Container) -> None:
    async def weight() -> float | None:
        return (await filled.retrieval.search("c", "야근 식대", rerank=False)).dense_weight

    assert await weight() == 0.5
    CalibrationStore(filled.store.database).set(
        "c", CollectionCalibration(FusionWeight(0.35)).as_json()
    )
    assert await weight() == 0.35
    off = filled.settings.retrieval.model_copy(update={"calibration": "off"})
    result = await filled.retrieval.under(off).search("c", "야근 식대", rerank=False)
    assert result.dense_weight == 0.5
    ranks = filled.settings.retrieval.model_copy(update={"fusion": "ranks"})
    result = await filled.retrieval.under(ranks).search("c", "야근 식대", rerank=False)
    assert result.dense_weight == 0.5  # learned of scores, not of ranks
    CalibrationStore(filled.store.database).set("c", {})
    assert await weight() == 0.5
    with pytest.raises(NotFound):
        CalibrationStore(filled.store.database).set("nowhere", {})


async def test_a_weight_by_query_differs_between_queries(filled: Container) -> None:
    CalibrationStore(filled.store.database).set("c", FULL.as_json())
    weights = {
        (await filled.retrieval.search("c", query, rerank=False)).dense_weight
        for query in ("야근 식대", "when does the shuttle bus leave the station in the morning")
    }
    assert len(weights) == 2
    assert all(weight is not None and LEAST <= weight <= GREATEST for weight in weights)


async def test_one_leg_alone_has_no_weight(filled: Container) -> None:
    found = await filled.retrieval.search("c", "야근", mode="lexical", rerank=False)
    assert found.dense_weight is None


async def test_a_measured_verdict_goes_before_the_languages_of_the_catalogue(
    filled: Container,
) -> None:
    model = filled.reranking.model

    async def reranked(query: str) -> bool:
        return (await filled.retrieval.search("c", query)).reranked

    def verdict(helps: bool) -> RerankVerdict:
        return RerankVerdict(model, helps, 0.0, 0.0, 0.0, 20)

    english, korean = "when does the shuttle bus leave", "야근 식대"
    assert (await reranked(english), await reranked(korean)) == (True, False)
    measured = CollectionCalibration(rerank={"en": verdict(False), "ko": verdict(True)})
    CalibrationStore(filled.store.database).set("c", measured.as_json())
    assert (await reranked(english), await reranked(korean)) == (False, True)
    other = {"en": replace(verdict(False), model="another"), "ko": verdict(True)}
    CalibrationStore(filled.store.database).set("c", CollectionCalibration(rerank=other).as_json())
    assert await reranked(english)  # nothing was measured of this model in English


async def test_another_wording_is_searched_beside_the_first(filled: Container) -> None:
    def found(hits: list[Hit]) -> set[str]:
        return {hit.document for hit in hits}

    alone = await filled.retrieval.search("c", "얼마?", mode="lexical")
    both = await filled.retrieval.search("c", "얼마?", also=["야근 식대 얼마?"], mode="lexical")
    assert "meal" not in found(alone.hits)
    assert "meal" in found(both.hits)
    same = await filled.retrieval.search("c", "연차 휴가", also=["연차 휴가"], rerank=False)
    assert same.hits == (await filled.retrieval.search("c", "연차 휴가", rerank=False)).hits


def test_features_are_finite_whatever_the_legs_hold() -> None:
    every: list[dict[str, Ranking]] = [
        {},
        {"dense": [], "lexical": []},
        {"dense": [(1, 0.5)], "lexical": [(2, 0.0), (3, 0.0)]},
    ]
    for legs in every:
        for query in ("", "?", "민법 제750조", "word " * 3000):
            found = features_of(query, legs)
            assert len(found) == len(NAMES)
            assert all(abs(value) < 1e6 for value in found)


def test_features_of_another_number_get_the_middle() -> None:
    assert FULL.fusion is not None
    assert FULL.fusion.by_query is not None
    assert FULL.fusion.by_query.weight((1.0,)) == 0.4

"""A collection's own words, through the services that ingest and search."""

from __future__ import annotations

import pytest

from ondol.app.container import Container
from ondol.core.errors import NotFound
from ondol.store.collection_words import KeywordStore

ROWS = [
    {"id": "a", "title": "보도", "text": "바닥난방은 시공사의 새 이름이다."},
    {"id": "b", "title": "난방", "text": "난방은 방을 데운다. 난방 난방."},
    {"id": "c", "title": "판결", "text": "피고는 배상금을 지급하라."},
    {"id": "d", "title": "근로기준법 제60조", "text": "연차 유급휴가를 주어야 한다."},
]


@pytest.fixture
async def filled(container: Container) -> Container:
    await container.ingest.ingest_records("own", ROWS)
    return container


async def found(container: Container, query: str) -> list[str]:
    result = await container.retrieval.search("own", query, mode="lexical", rerank=False)
    return [hit.document for hit in result.hits]


async def test_synonyms_count_from_the_next_query_on(filled: Container) -> None:
    assert "c" not in await found(filled, "손해배상")
    report = filled.keywords.configure("own", synonyms=[("손해배상", "배상금")])
    assert (report.synonyms, report.reindexed) == (1, 0)
    assert await found(filled, "손해배상") == ["c"]
    filled.keywords.configure("own", synonyms=[])
    assert "c" not in await found(filled, "손해배상")


async def test_a_short_name_of_a_law_finds_what_its_full_name_finds(filled: Container) -> None:
    assert "d" in await found(filled, "근기법의 휴가")


async def test_a_group_names_a_law_for_look_ups_too(filled: Container) -> None:
    filled.keywords.configure("own", synonyms=[("근로기준법", "노동법전")])
    assert (await found(filled, "노동법전 60조"))[0] == "d"


async def test_a_dictionary_indexes_the_same_chunks_anew(filled: Container) -> None:
    assert set(await found(filled, "난방")) == {"a", "b"}
    before = [
        chunk.chunk
        for row in ROWS
        for chunk in KeywordStore(filled.store.database).chunks("own", row["id"])
    ]
    told: list[tuple[int, int]] = []
    report = filled.keywords.configure(
        "own", dictionary=["바닥난방"], progress=lambda done, total: told.append((done, total))
    )
    assert (report.dictionary, report.reindexed, report.chunks) == (1, 4, 4)
    assert told[-1] == (4, 4)
    after = [
        chunk.chunk
        for row in ROWS
        for chunk in KeywordStore(filled.store.database).chunks("own", row["id"])
    ]
    assert after == before
    assert await found(filled, "바닥난방이란?") == ["a"]
    assert await found(filled, "난방") == ["b"]
    assert filled.keywords.configure("own").reindexed == 0
    assert filled.store.check().ok


async def test_what_is_ingested_later_comes_under_the_same_words(filled: Container) -> None:
    filled.keywords.configure("own", dictionary=["바닥난방"])
    await filled.ingest.ingest_records("own", [{"id": "e", "text": "바닥난방에서 알립니다."}])
    assert set(await found(filled, "바닥난방")) == {"a", "e"}
    assert filled.keywords.configure("own", dictionary=[]).reindexed == 5
    assert set(await found(filled, "난방")) == {"a", "b", "e"}


async def test_stopped_halfway_the_next_call_goes_on(filled: Container) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled.keywords.configure("own", dictionary=["바닥난방"], progress=stop)
    assert filled.keywords.configure("own").reindexed == 4
    assert filled.keywords.configure("own").reindexed == 0


async def test_an_unknown_collection_is_told(filled: Container) -> None:
    with pytest.raises(NotFound):
        filled.keywords.configure("none")

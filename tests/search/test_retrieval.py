from __future__ import annotations

import pytest

from ondol.app.container import Container
from ondol.core.errors import Conflict, InvalidInput, NotFound
from ondol.core.types import SearchMode

TEXTS = {
    "meal": "야근 식대는 21시를 넘겨 일하면 13,500원을 지급한다.",
    "leave": "연차 휴가는 1년에 15일이다.",
    "case": "대법원 2019다12345 판결은 민법 제750조를 적용하였다.",
    "shuttle": "The shuttle bus leaves the station at 7:40 every morning.",
}


@pytest.fixture
async def filled(container: Container) -> Container:
    rows = [{"id": k, "text": v, "metadata": {"kind": k}} for k, v in TEXTS.items()]
    await container.ingest.ingest_records("c", rows)
    return container


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize(
    ("query", "wanted"),
    [("야근 식대 13,500원", "meal"), ("shuttle bus station", "shuttle"), ("연차 휴가", "leave")],
)
async def test_every_mode_finds_and_points_at_the_stored_text(
    filled: Container, mode: SearchMode, query: str, wanted: str
) -> None:
    found = await filled.retrieval.search("c", query, mode=mode, rerank=False)
    top = found.hits[0]
    assert top.document == wanted
    stored = filled.store.document("c", top.document).text
    assert stored[top.start : top.end] == top.text


@pytest.mark.parametrize("query", ["2019다12345", "제750조", "750조"])
async def test_case_numbers_and_articles_are_found_whole(filled: Container, query: str) -> None:
    found = await filled.retrieval.search("c", query, mode="lexical")
    assert [hit.document for hit in found.hits] == ["case"]


async def test_filters_apply_before_ranking(filled: Container) -> None:
    found = await filled.retrieval.search("c", "야근 식대", filter={"kind": "leave"}, rerank=False)
    assert {hit.document for hit in found.hits} == {"leave"}


async def test_reranking_is_on_only_for_languages_the_model_knows(filled: Container) -> None:
    english = await filled.retrieval.search("c", "when does the shuttle bus leave")
    korean = await filled.retrieval.search("c", "야근 식대")
    assert english.reranked
    assert english.hits[0].rerank_score is not None
    assert not korean.reranked


async def test_bad_queries_have_clear_errors(filled: Container) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        await filled.retrieval.search("c", "  ")
    with pytest.raises(NotFound):
        await filled.retrieval.search("nowhere", "x")
    filled.store.create_collection("other", embedder="another-model", dimensions=8)
    with pytest.raises(Conflict, match="another-model"):
        await filled.retrieval.search("other", "x")

"""What a query names outright comes first, through the service that searches."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.answers.ask import SourcesEvent
from ondol.answers.rewriting import ConversationTurn
from ondol.app.container import Container
from ondol.core.errors import NotFound
from ondol.core.types import Hit, SearchMode
from ondol.search.lookups import brought_forward, kept_first

STATUTES = [
    ("민법_750", "민법 제750조(불법행위의 내용)", "고의 또는 과실로 타인에게 손해를 가한 자"),
    ("민법_751", "민법 제751조(재산 이외의 손해의 배상)", "민법 제750조, 민법 제750조의 불법행위"),
    ("상법_750", "상법 제750조(소유자의 책임)", "민법 제750조를 준용한다. 민법 제750조"),
    ("근로기준법_60", "근로기준법 제60조(연차 유급휴가)", "① 15일의 유급휴가\n② 1일의 유급휴가"),
    (
        "근로기준법_61",
        "근로기준법 제61조(사용 촉진)",
        "근로기준법 제60조 제1항, 제60조 제2항의 휴가",
    ),
]
CASES = [
    ("p1", "손해배상 (대법원 2019-05-30 선고 2016다276177)", "위자료의 산정"),
    ("p2", "임금 (대법원 2024-02-08 선고 2018다206899, 206905)", "통상임금의 범위"),
    (
        "p3",
        "청구이의 (대법원 2020-01-01 선고 2019다111)",
        "2016다276177 판결, 2016다276177 등 참조",
    ),
    ("p4", "위헌소원 (헌재 2021-01-01 선고 2020헌바12)", "재산권 보장"),
]
MODES: list[SearchMode] = ["hybrid", "lexical"]


@pytest.fixture
async def filled(container: Container) -> Container:
    rows = [{"id": i, "title": t, "text": x} for i, t, x in [*STATUTES, *CASES]]
    await container.ingest.ingest_records("law", rows)
    return container


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("민법 제750조", "민법_750"),
        ("민법 750조", "민법_750"),
        ("민750", "민법_750"),
        ("상법 제750조의 책임은?", "상법_750"),
        ("상750", "상법_750"),
        ("근로기준법 제60조 제1항", "근로기준법_60"),
        ("근기법 60조에 따른 휴가 사용 촉진", "근로기준법_60"),
        ("2016다276177", "p1"),
        ("2016 다 276177 판결", "p1"),
        ("2018다206905", "p2"),
        ("2020헌바12", "p4"),
    ],
)
async def test_the_record_itself_ranks_first(
    filled: Container, mode: SearchMode, query: str, wanted: str
) -> None:
    found = await filled.retrieval.search("law", query, mode=mode, rerank=False)
    assert found.hits[0].document == wanted
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert len({hit.chunk for hit in found.hits}) == len(found.hits)


async def test_it_stays_first_when_the_hits_are_reranked(filled: Container) -> None:
    found = await filled.retrieval.search("law", "민법 제750조", rerank=True)
    assert found.reranked
    assert found.hits[0].document == "민법_750"


async def test_two_references_share_the_first_places(filled: Container) -> None:
    found = await filled.retrieval.search("law", "민법 제751조, 제750조", rerank=False)
    assert [hit.document for hit in found.hits[:2]] == ["민법_751", "민법_750"]


async def test_a_filter_holds_for_look_ups_too(filled: Container) -> None:
    await filled.ingest.ingest_records(
        "law", [{"id": "f", "title": "메모", "text": "제750조", "metadata": {"kind": "memo"}}]
    )
    found = await filled.retrieval.search("law", "민법 제750조", filter={"kind": "memo"})
    assert {hit.document for hit in found.hits} == {"f"}


async def test_an_article_without_its_law_counts_in_one_document_only(
    filled: Container,
) -> None:
    text = "제1조(목적) 이 규칙은 휴가를 정한다.\n\n제2조(휴가) 휴가는 15일이다.\n"
    await filled.ingest.ingest_records("rules", [{"id": "r", "title": "취업규칙", "text": text}])
    found = await filled.retrieval.search("rules", "제2조", mode="lexical")
    assert "제2조(휴가)" in found.hits[0].text
    both = await filled.retrieval.search("law", "제750조", mode="lexical")
    assert both.hits[0].score > both.hits[-1].score  # left as the keywords ranked them


async def test_a_collection_knows_names_of_its_own(container: Container) -> None:
    container.store.create_collection(
        "own",
        embedder=container.embedding.model,
        dimensions=container.embedding.dimensions,
        metadata={"law_names": {"사규": "취업규칙"}},
    )
    rows = [
        {"id": "a", "title": "취업규칙 제3조(채용)", "text": "채용"},
        {"id": "b", "title": "메모", "text": "사규 제3조 사규 제3조"},
    ]
    await container.ingest.ingest_records("own", rows)
    found = await container.retrieval.search("own", "사규 제3조", mode="lexical")
    assert found.hits[0].document == "a"


async def test_a_file_of_names_is_read_and_a_missing_one_is_told(
    filled: Container, tmp_path: Path
) -> None:
    names = tmp_path / "names.toml"
    names.write_text('"근로기준법" = ["노동법전"]\n', "utf-8")
    settings = filled.settings.retrieval.model_copy(update={"law_names": str(names)})
    found = await filled.retrieval.under(settings).search("law", "노동법전 60조", mode="lexical")
    assert found.hits[0].document == "근로기준법_60"
    absent = settings.model_copy(update={"law_names": str(tmp_path / "absent.toml")})
    with pytest.raises(NotFound):
        filled.retrieval.under(absent)


async def test_vectors_alone_are_left_alone(filled: Container) -> None:
    found = await filled.retrieval.search("law", "민법 제750조", mode="dense", rerank=False)
    cosines = [hit.dense_score or 0.0 for hit in found.hits]
    assert cosines == sorted(cosines, reverse=True)


def test_orders_change_only_for_what_is_named() -> None:
    ranking = [(1, 0.9), (2, 0.5), (3, 0.1)]
    assert brought_forward(ranking, []) == ranking
    assert brought_forward(ranking, [3, 7]) == [(3, 0.9), (7, 0.9), (1, 0.9), (2, 0.5)]
    assert brought_forward([], [4]) == [(4, 1.0)]
    hits = [Hit("d", chunk, None, 0, 1, score, "x") for chunk, score in ranking]
    assert [hit.chunk for hit in kept_first(hits, [3])] == [3, 1, 2]
    assert kept_first(hits, [9]) == hits


@pytest.mark.parametrize(
    ("before", "query", "wanted"),
    [
        ("민법 제751조는 무슨 뜻인가요?", "그럼 제750조는?", "민법_750"),
        ("상법에는 어떤 책임이 있나요?", "그럼 제750조는?", "상법_750"),
        ("민법 제750조와 상법 제750조", "그럼 근로기준법 제60조는?", "근로기준법_60"),
    ],
)
async def test_a_follow_up_is_of_the_law_spoken_of(
    filled: Container, before: str, query: str, wanted: str
) -> None:
    found = await filled.retrieval.search("law", query, before=before, mode="lexical")
    assert found.hits[0].document == wanted


async def test_after_no_law_an_article_of_several_is_left_to_search(filled: Container) -> None:
    for before in ("", "배상은 누가 하나요?"):
        found = await filled.retrieval.search(
            "law", "그럼 제750조는?", before=before, mode="lexical"
        )
        alone = await filled.retrieval.search("law", "그럼 제750조는?", mode="lexical")
        assert [hit.chunk for hit in found.hits] == [hit.chunk for hit in alone.hits]
        assert found.hits[0].score > found.hits[-1].score


@pytest.mark.parametrize("law", ["민법", "상법"])
async def test_an_answer_to_a_follow_up_rests_on_the_law_spoken_of(
    filled: Container, law: str
) -> None:
    history = [ConversationTurn(f"{law} 제751조는 무슨 뜻인가요?")]
    events = filled.ask.stream("law", "그럼 제750조는?", history=history, top_k=1)
    found = [event.hits async for event in events if isinstance(event, SourcesEvent)]
    assert [hit.document for hits in found for hit in hits] == [f"{law}_750"]

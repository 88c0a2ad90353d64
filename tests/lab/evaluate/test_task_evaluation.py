"""Tasks evaluated over fake models: what is right, what carries it, what the baselines do instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.stage import filling, tasks_on
from tests.tasks.test_task_service import LAWS

from ondol.app.container import Container
from ondol.core.errors import InvalidInput, NotFound
from ondol.core.types import GenerationRequest
from ondol.lab.evaluate.legal_scores import cited_provisions
from ondol.lab.evaluate.task_baselines import baseline_of
from ondol.lab.evaluate.task_evaluation import OURS, evaluate_task
from ondol.lab.evaluate.task_items import Expected, ItemSources, TaskItem, load_items
from ondol.lab.evaluate.task_runs import judged_claims
from ondol.tasks.declaration import Task
from ondol.tasks.pack_library import PackLibrary

CASE = "피고의 과실로 손해를 입었다. 원고는 보증금의 반환을 구한다."


@pytest.fixture
def shelf(tmp_path: Path) -> PackLibrary:
    return PackLibrary.open(tmp_path)


def item(input: Mapping[str, Any], **expected: Any) -> TaskItem:
    return TaskItem("i", input, Expected.model_validate(expected))


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


async def test_sentiment_is_scored_by_text_and_unknown_labels_are_told(
    container: Container,
) -> None:
    reviews = [
        {"id": "a", "text": "정말 맛있어요 최고예요"},
        {"text": "최악이에요 맛없고 별로"},
        {"id": "c", "text": "맛있어요"},
    ]
    items = [
        item({"reviews": reviews}, labels={"a": "positive", "2": "positive", "c": "mixed"}),
        item({"reviews": reviews}, labels=["positive", "negative", "mixed"]),
        item({"reviews": reviews[:1]}, label="positive"),
    ]
    async with tasks_on(container, lambda _: "{}") as (tasks, _):
        task = tasks.task("reviews.sentiment")
        found = await evaluate_task(tasks, task, items, store=container.store)
    figures = found.figures[OURS]
    assert figures["labelled"] == 7
    assert figures["accuracy"] == pytest.approx(4 / 7)
    assert figures["unknown_labels"] == {"mixed": 2}
    assert figures["accuracy_of_known"] == pytest.approx(4 / 5)
    assert figures["macro_f1_of_known"] == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert figures["success_rate"] == figures["schema_valid"] == 1.0
    assert figures["prompt_tokens_mean"] == 0
    assert "faithfulness" not in figures


async def test_aspects_claims_and_references_beside_all_in_the_prompt(
    container: Container,
) -> None:
    reviews = [{"id": f"r{i}", "text": f"배달이 정말 빨라요 {i}번째"} for i in range(40)]
    reviews += [{"id": "x", "text": "양이 푸짐해요"}, {"id": "y", "text": "양이 적어요"}]
    told = item(
        {"reviews": reviews},
        aspects=[{"aspect": "delivery", "polarity": "positive"}, "service"],
        references="배달이 정말 빨라요",
    )
    bad = item({"reviews": [{"text": " "}]})
    heard: list[tuple[int, int, str]] = []
    async with tasks_on(container, lambda r: filling(r, "배달이 정말 빨라요")) as (
        tasks,
        generator,
    ):
        task = tasks.task("reviews.summary")
        found = await evaluate_task(
            tasks,
            task,
            [told, bad],
            store=container.store,
            baselines=["all"],
            told=lambda *said: heard.append(said),
        )
    ours, others = found.figures[OURS], found.figures["all"]
    assert ours["aspect_recall"] == 0.5
    assert ours["aspect_precision"] == 0.5  # portion is counted, too
    assert ours["aspect_polarity_recall"] == 1.0
    assert ours["worded_aspect_precision"] == 1.0
    assert ours["aspect_coverage"] == pytest.approx(40 / 42)
    assert ours["rouge_l"] == ours["bleu"] == 1.0
    # The sentence about delivery was said of the portion as well, and dropped there.
    assert (ours["claims"], ours["claims_generated"], ours["faithfulness"]) == (1, 2, 0.5)
    assert (ours["success_rate"], ours["errors"]) == (0.5, {"no_entries": 1})
    assert others["prompt_tokens_mean"] > 1.5 * ours["prompt_tokens_mean"]
    prompts = [len(request.messages[-1].content) for request in generator.order]
    assert prompts[0] < prompts[1]
    assert found.coverage == {"all": 1.0}
    report = found.as_json()
    assert report["baselines"]["all"]["differences"]["faithfulness"] == 0.0
    assert report["baselines"]["all"]["differences"]["prompt_tokens_mean"] < 0
    assert [said[2] for said in heard] == [OURS, "all", "all", OURS]
    assert [said[:2] for said in heard] == [(0, 4), (1, 4), (2, 4), (3, 4)]


async def test_the_context_bounds_what_all_in_the_prompt_means(shelf: PackLibrary) -> None:
    task = shelf.task("reviews.summary")
    [wide] = [
        s for s in baseline_of(task, "all", context_tokens=9_000).steps if s.use == "represent"
    ]
    assert wide.parameters.model_dump()["tokens"] == 9_000 - 400 - 700
    assert wide.parameters.model_dump()["method"] == "all"
    with pytest.raises(InvalidInput, match="no step 'represent'"):
        baseline_of(shelf.task("reviews.sentiment"), "all", context_tokens=4096)
    with pytest.raises(InvalidInput, match="does not both retrieve and generate"):
        baseline_of(shelf.task("legal.search"), "no-retrieval", context_tokens=4096)


async def test_all_in_the_prompt_ends_where_the_context_does(container: Container) -> None:
    reviews = [{"id": f"r{i}", "text": f"배달이 정말 빨라요 {i}번째"} for i in range(60)]
    async with tasks_on(container, lambda r: filling(r, "배달이 정말 빨라요")) as (
        tasks,
        generator,
    ):
        task = baseline_of(tasks.task("reviews.summary"), "all", context_tokens=1_400)
        found = await tasks.run(task, {"reviews": reviews})
    assert 5 < len(found.result["representatives"]) < 30
    assert "- delivery: r1, r2, " in generator.order[0].messages[-1].content


async def test_law_with_and_without_looking_it_up(container: Container) -> None:
    await container.ingest.ingest_records("statutes", LAWS)
    seen: list[Mapping[str, Any]] = []

    def answer(request: GenerationRequest) -> str:
        seen.append(request.json_schema or {})
        said = json.loads(filling(request, "피고의 과실로 손해를 입었다."))
        if "name" in json.dumps(request.json_schema):
            said["provisions"] = [
                {"name": "민법 제750조", "reason": "과실로 손해를 입었다"},
                {"name": "민법 제9999조", "reason": "과실로 손해를 입었다"},
                {"name": "어떤 법률", "reason": "과실로 손해를 입었다"},
            ]
        return json.dumps(said, ensure_ascii=False)

    told = item({"text": CASE}, provisions=["민법_750"], tags=["민법", "불법행위"], outcome="기각")
    async with tasks_on(container, answer) as (tasks, generator):
        task = tasks.task("legal.case_analysis")
        found = await evaluate_task(
            tasks, task, [told], store=container.store, baselines=["no-retrieval"]
        )
    ours, others = found.figures[OURS], found.figures["no-retrieval"]
    assert ours["cited_real"] == 1.0
    assert ours["provisions_cited"] == 1
    assert others["success_rate"] == others["schema_valid"] == 1.0
    assert others["provisions_cited"] == 3
    assert others["statute_relevance"] == pytest.approx(1 / 3)
    assert others["statute_recall"] == 1.0
    assert 0.0 < others["cited_real"] < 0.5
    assert others["tag_f1"] == 1.0
    assert others["outcome_accuracy"] == 0.0
    assert others["supported_of_kept"] < ours["supported_of_kept"]
    # What is left of the baseline's schema cites the case only, and asks for names instead.
    assert "p1" not in json.dumps(seen[1])
    assert seen[1]["properties"]["provisions"]["items"]["required"] == ["name", "reason"]
    assert "법령과 판례는 주어지지 않습니다" in generator.order[1].messages[0].content


async def test_a_question_without_passages_is_still_asked(container: Container) -> None:
    await container.ingest.ingest_records("statutes", LAWS)
    told = item({"question": "불법행위로 손해를 입으면?"}, provisions=["민법 제750조"])
    text = "민법 제750조에 따라 배상받습니다."
    async with tasks_on(container, lambda r: filling(r, text)) as (tasks, generator):
        task = tasks.task("legal.consultation")
        found = await evaluate_task(
            tasks, task, [told], store=container.store, baselines=["no-retrieval"]
        )
    others = found.figures["no-retrieval"]
    assert (others["provisions_cited"], others["statute_relevance"]) == (1, 1.0)
    assert others["claims"] == 1
    assert "불법행위로 손해를" in generator.order[-1].messages[-1].content


async def test_claims_and_citations_are_looked_up_again(
    container: Container, shelf: PackLibrary
) -> None:
    await container.ingest.ingest_records("statutes", LAWS)
    task: Task = shelf.task("legal.case_analysis")
    sources = ItemSources(task, {"text": CASE}, container.store)
    text = container.store.document("statutes", "민법_750").text
    place = {"document": "민법_750", "page": None, "start": 0, "end": 5, "quote": text[:5]}
    place["title"] = "민법 제750조(불법행위의 내용)"
    forged = {**place, "quote": "다른 말"}
    gone = {**place, "document": "민법_1", "title": "민법 제1조(법원)"}
    from_case = {"document": "input", "start": 0, "end": 3, "quote": CASE[:3]}
    rows = [
        {"text": "과실", "evidence": [place]},
        {"text": "과실 3년", "evidence": [place]},
        {"text": "과실", "evidence": [forged]},
        {"text": "과실", "evidence": [from_case, gone]},
        {"text": "피고의", "evidence": [from_case]},
        {"text": "근거 없음", "evidence": []},
    ]
    claims = judged_claims({"facts": rows}, ("facts", "outcome"), 2, sources)
    assert (claims.generated, claims.kept, claims.supported) == (8, 6, 2)
    assert claims.support[-1] == 0.0
    result = {
        "provisions": [
            {"reason": "상법 제750조와 민법 제750조", "evidence": [place]},
            {"reason": "같다", "evidence": [forged, gone]},
        ]
    }
    cited = cited_provisions(result, ("provisions",), ["민법 제750조", "상법_1"], sources)
    assert (cited.cited, cited.real) == (3, 1)  # 민법 750 once, 상법 750 and 민법 1 are not there
    assert (cited.provisions, cited.right, cited.found, cited.wanted) == (3, 1, 1, 2)
    assert cited.tags == {"민법", "불법행위"}


async def test_punishments_and_fields_are_compared(container: Container) -> None:
    await container.ingest.ingest_records("statutes", LAWS)
    await container.ingest.ingest_records(
        "precedents", [{"id": "p", "text": "피고인이 과실로 손해를 입혔다. 징역 2년에 처한다."}]
    )
    input = {"text": CASE + " 2023. 3. 2. 벌금 100만 원을 냈다."}
    bands = [
        item(
            input, sentence_band={"kind": "prison", "amount": 24}, fields={"dates": ["2023-03-02"]}
        ),
        item(
            input, sentence_band={"kind": "prison", "amount": 36}, fields={"dates": ["2023-03-03"]}
        ),
        item(input, sentence_band={"kind": "fine", "amount": 24}),
    ]
    async with tasks_on(container, lambda r: filling(r, "피고의 과실로")) as (tasks, _):
        task = tasks.task("legal.case_analysis")
        found = await evaluate_task(tasks, task, bands, store=container.store)
    assert found.figures[OURS]["band_accuracy"] == pytest.approx(1 / 3)
    assert found.figures[OURS]["field_f1"] == 0.5


def test_items_are_read_and_faults_named(tmp_path: Path, shelf: PackLibrary) -> None:
    task = shelf.task("reviews.sentiment")
    path = lines(
        tmp_path / "a.jsonl", {"id": 7, "input": {"reviews": []}, "expected": {"label": "p"}}
    )
    [one] = load_items(path, task)
    assert (one.id, one.expected.label, one.rows) == ("7", "p", 1)
    faults = {
        "item 1 has no input": {"expected": {}},
        "expected.lable": {"input": {}, "expected": {"lable": "p"}},
        "expected.sentence_band.kind": {
            "input": {},
            "expected": {"sentence_band": {"kind": "x", "amount": 1}},
        },
        "is no object": [1],
        "no text or no label": {"text": "좋아요"},
    }
    for said, row in faults.items():
        with pytest.raises(InvalidInput, match=said):
            load_items(lines(tmp_path / "b.jsonl", row), task)
    with pytest.raises(InvalidInput, match="holds no items"):
        load_items(lines(tmp_path / "c.jsonl"), task)
    with pytest.raises(NotFound):
        load_items(tmp_path / "none.jsonl", task)
    with pytest.raises(InvalidInput, match="takes no list of texts"):
        load_items(
            lines(tmp_path / "d.jsonl", {"text": "x", "label": "y"}),
            shelf.task("legal.structuring"),
        )


def test_labelled_texts_are_put_together_by_group_and_language(
    tmp_path: Path, shelf: PackLibrary
) -> None:
    rows: list[dict[str, str]] = [{"text": f"좋아요 {i}", "label": "positive"} for i in range(250)]
    rows += [
        {"text": "very good", "label": "positive"},
        {"text": "좋아", "label": "x", "group": "g"},
    ]
    items = load_items(lines(tmp_path / "a.jsonl", *rows), shelf.task("reviews.sentiment"))
    assert [one.rows for one in items] == [200, 50, 1, 1]
    assert items[2].input["reviews"] == [{"id": "251", "text": "very good"}]
    assert items[3].expected.labels == {"252": "x"}
    limited = load_items(
        lines(tmp_path / "a.jsonl", *rows), shelf.task("reviews.sentiment"), limit=3
    )
    assert [one.rows for one in limited] == [3]

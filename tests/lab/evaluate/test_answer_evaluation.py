"""What an answer cites, held against what it should."""

from __future__ import annotations

from ondol.answers.ask import Answer, AskTimings
from ondol.core.types import Citation, Usage
from ondol.lab.evaluate.answer_evaluation import AnsweredQuestion, summarise
from ondol.lab.evaluate.datasets import Question
from ondol.lab.evaluate.legal_scores import Provisions, judge

GOLD = {"민법_750": "민법 제750조(불법행위의 내용)"}


def test_provisions_of_the_text_and_of_cited_documents_count_once() -> None:
    found = judge(
        "민법 750조에 따라 배상하며, 민법 제750조와 상법 제24조가 적용됩니다.",
        cited={"민법_750": "민법 제750조(불법행위의 내용)", "메모": "상담 기록"},
        gold=GOLD,
    )
    assert len(found.cited) == 2
    assert found.right == 1


def test_gold_texts_name_provisions_too() -> None:
    found = judge("민750에 따릅니다.", cited={}, gold={}, gold_texts=["민법 제750조"])
    assert (found.cited, found.right) == (("ref민법제750조",), 1)
    assert judge("근로기준법 제60조", cited={}, gold=GOLD).right == 0


def test_an_article_without_its_law_and_a_case_are_no_provisions() -> None:
    found = judge("제750조와 2019다12345", cited={"p": "임금 (2019다12345)"}, gold=GOLD)
    assert found == Provisions()


def answered(
    identity: str,
    *,
    gold: tuple[str, ...] = ("15일",),
    abstained: bool = False,
    provisions: Provisions,
) -> AnsweredQuestion:
    citation = Citation("d", None, 0, 2, "15", verified=True)
    return AnsweredQuestion(
        question=Question(identity, "연차?", gold, ("d", "e")),
        answer=Answer(
            answer="15일",
            citations=[] if abstained else [citation],
            abstained=abstained,
            dropped_citations=0,
            unsupported_statements=0,
            relevance=1.0,
            usage=Usage(),
            timings=AskTimings(0.0, 0.0, 0.0, 0.0),
            model="fake",
        ),
        contains=not abstained,
        exact=not abstained,
        f1=0.0 if abstained else 1.0,
        citations_right=0 if abstained else 1,
        citations_verbatim=0 if abstained else 1,
        documents_cited=0 if abstained else 1,
        provisions=provisions,
    )


def test_the_summary_by_hand() -> None:
    report = summarise(
        [
            answered("1", provisions=Provisions(("ref민법제750조", "ref상법제24조"), 1)),
            answered("2", provisions=Provisions(), abstained=True),
            answered("trap", gold=(), abstained=True, provisions=Provisions()),
            answered("trap2", gold=(), provisions=Provisions(("ref민법제1조",), 0)),
        ]
    )
    assert report["exact_match"] == report["token_f1"] == report["contains"] == 0.5
    assert report["citation_precision"] == 1.0
    assert report["citation_recall"] == 0.5
    assert report["gold_documents_cited"] == 0.25
    assert report["provisions_cited"] == 2
    assert report["statute_relevance"] == 0.5
    assert report["abstained_wrongly"] == 0.5
    assert report["abstained_rightly"] == 0.5
    assert report["intervals"]["contains"] == [0.0, 1.0]
    assert summarise([])["statute_relevance"] is None

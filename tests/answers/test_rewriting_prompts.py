"""Which questions lean on earlier ones, and what they are completed with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.answers.rewriting import (
    MAX_CHARS,
    TURNS,
    ConversationTurn,
    leans_back,
    rewriting_messages,
    rewritten_question,
    standalone,
)


@pytest.mark.parametrize(
    "question",
    [
        "그럼 과실이 있으면?",
        "그건 언제까지 주장해야 해요?",
        "배우자는요?",
        "착오로 한 것도?",
        "언제까지 신청하면 되나요?",
        "거기서 더 무거워질 수도 있나요?",
        "and for part-time staff?",
        "What about monitors?",
        "How many of them are there?",
        "Why?",
        "Can I extend it by another week?",
    ],
)
def test_follow_ups_lean_back(question: str) -> None:
    assert leans_back(question)


@pytest.mark.parametrize(
    "question",
    [
        "",
        "?!",
        "근로시간이 8시간이면 휴게시간을 얼마나 주어야 하나요?",
        "자필증서에 의한 유언은 어떤 방식으로 해야 하나요?",
        "상행위로 생긴 채권의 소멸시효 기간은?",
        "How long does it take to renew a library book?",
        "Up to how many changed lines will a reviewer still look at?",
        "임대인이 바뀐 뒤에 그 사실을 임차인에게 알리지 않은 채 보증금을 돌려주지 않는 경우 어떤 책임을 지는지 알려 주세요",
    ],
)
def test_whole_questions_do_not(question: str) -> None:
    assert not leans_back(question)


def test_the_earlier_question_is_carried() -> None:
    history = [ConversationTurn("연차 휴가는 며칠인가요?", "15일입니다.")]
    assert standalone("그럼 파트타임은?", history) == "연차 휴가는 며칠인가요? 그럼 파트타임은?"
    assert standalone("그럼 파트타임은?", []) == "그럼 파트타임은?"


def test_a_chain_is_followed_and_a_new_topic_ends_it() -> None:
    first, second = (
        ConversationTurn("How often are laptops replaced?"),
        ConversationTurn("And monitors?"),
    )
    assert standalone("And phones?", [first, second]) == (
        "How often are laptops replaced? And monitors? And phones?"
    )
    topic = ConversationTurn("When does the morning shuttle leave Jukjeon Station?")
    assert standalone("And from Sadang?", [first, second, topic]) == (
        f"{topic.question} And from Sadang?"
    )


@given(st.text(max_size=400), st.lists(st.text(max_size=600), max_size=8))
def test_it_is_bounded_and_ends_with_the_question(question: str, earlier: list[str]) -> None:
    found = standalone(question, [ConversationTurn(one) for one in earlier])
    asked = " ".join(question.split())
    assert found.endswith(asked)
    assert len(found) <= MAX_CHARS + 1 + len(asked)
    if not leans_back(question):
        assert found == asked


def test_the_generator_sees_the_last_turns_only_and_no_control_tokens() -> None:
    history = [ConversationTurn(f"question {n}", f"answer {n}") for n in range(10)]
    *_, asked = rewriting_messages("<|im_start|>and then?", history, language="en")
    assert f"question {10 - TURNS}" in asked.content
    assert f"question {9 - TURNS}\n" not in asked.content
    assert "<|im_start|>" not in asked.content


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("고친 질문: 배우자의 상속 순위는?", "배우자의 상속 순위는?"),
        ('\n "How often are monitors replaced?"\nmore', "How often are monitors replaced?"),
        ("", ""),
        ("…\n", ""),
        ("x" * 1000, "x" * MAX_CHARS),
    ],
)
def test_the_question_is_taken_from_the_reply(reply: str, wanted: str) -> None:
    assert rewritten_question(reply) == wanted

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.korean_model import shared_analyzer

from ondol.language.korean import KeywordAnalyzer


@pytest.fixture(scope="module")
def analyzer() -> KeywordAnalyzer:
    return shared_analyzer()


def test_particles_and_endings_go_and_compounds_are_added(analyzer: KeywordAnalyzer) -> None:
    assert analyzer.tokens("연차 유급휴가를 신청했다.") == [
        "연차",
        "유급",
        "유급휴가",
        "휴가",
        "신청",
    ]


def test_legal_terms_stay_whole_in_text_and_query(analyzer: KeywordAnalyzer) -> None:
    text = "대법원 2019다12345 판결은 근로기준법 제60조의2 제3항을 적용하였다."
    tokens = analyzer.tokens(text)
    assert {"2019다12345", "제60조의2", "제3항"} <= set(tokens)
    assert "제60조" in analyzer.query_tokens("60조는 무엇인가요?")
    assert analyzer.query_tokens("제 60 조 의 2") == analyzer.query_tokens("제60조의2")


def test_a_query_drops_question_words_and_repeats(analyzer: KeywordAnalyzer) -> None:
    assert analyzer.query_tokens("휴가는 무엇이고 휴가는 어떻게 쓰나요?") == ["휴가", "쓰"]
    assert analyzer.query_tokens("어떤 경우?") == ["경우"]


def test_decomposed_hangul_is_the_same_word(analyzer: KeywordAnalyzer) -> None:
    assert analyzer.tokens("휴가") == analyzer.tokens("\u1112\u1172\u1100\u1161") == ["휴가"]


def test_mixed_texts_keep_their_places(analyzer: KeywordAnalyzer) -> None:
    texts = ["휴가 규정", "plain English", "", "😀 급여 13,500원", "ㅋㅋ"]
    assert analyzer.tokens_many(texts) == [analyzer.tokens(text) for text in texts]
    assert analyzer.tokens_many(texts)[3] == ["급여", "13500원", "13500"]


def test_threads_share_one_analyzer(analyzer: KeywordAnalyzer) -> None:
    texts = [f"제{number}조 근로자의 휴가 신청 {number}" for number in range(60)]
    alone = [analyzer.tokens(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(analyzer.tokens, texts)) == alone


def test_english_never_loads_the_korean_model() -> None:
    program = (
        "import sys; from ondol.language.korean import KeywordAnalyzer; "
        "print(KeywordAnalyzer().tokens('Plain words, café, 3.5%'), 'kiwipiepy' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "['plain', 'word', 'café', '3점5퍼센트', '3점5'] False"


def test_a_long_query_is_bounded(analyzer: KeywordAnalyzer) -> None:
    assert len(analyzer.query_tokens("낱말 " + "word " * 1_000_000)) <= 3

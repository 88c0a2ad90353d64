from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ondol.answers.citations import AnswerVerifier, Verification
from ondol.answers.selection import Excerpt
from ondol.core.types import Hit

TEXT = (
    "제20조(야근 식대) 회사는 21시를 넘겨 근무한 사원에게 1회 13,500원의 야근 식대를 지급한다. "
    "다만 출장 중인 사원은 제외한다."
)
CUT = TEXT.index(" 다만")


def excerpt(text: str = TEXT, *spans: tuple[int, int], start: int = 100) -> Excerpt:
    hit = Hit(
        document="rules.pdf",
        chunk=1,
        page=3,
        start=start,
        end=start + len(text),
        score=1.0,
        text=text,
    )
    return Excerpt(hit, spans or ((0, CUT), (CUT + 1, len(text))))


def verify(
    pieces: list[str], *, question: str = "야근하면 밥값이 얼마야?"
) -> tuple[str, Verification]:
    verifier = AnswerVerifier(question, [excerpt()], min_support=0.5)
    shown = "".join(verifier.feed(piece) for piece in pieces) + verifier.finish()
    return shown, verifier.result


def test_a_supported_statement_gets_a_marker_and_an_exact_range() -> None:
    shown, result = verify(["야근 식대는 1회 13,500원입니다."])
    assert shown == "야근 식대는 1회 13,500원입니다. [1]"
    (citation,) = result.citations
    assert citation.quote == TEXT[citation.start - 100 : citation.end - 100]
    assert "13,500원" in citation.quote
    assert citation.page == 3


def test_a_number_that_stands_nowhere_is_never_cited() -> None:
    shown, result = verify(["야근 식대는 1회 15,000원입니다. [1]"])
    assert "[1]" not in shown
    assert result.citations == []
    assert result.unsupported == 1
    assert result.dropped == 1


def test_the_models_own_markers_are_replaced_by_verified_ones() -> None:
    shown, result = verify(["출장 중인 ", "사원은 제외", "한다 [", "7", "]."])
    assert shown == "출장 중인 사원은 제외한다. [1]"
    assert result.dropped == 1


def test_each_statement_is_cited_by_itself_while_streaming() -> None:
    shown, result = verify(["야근 식대는 13,500원입니다.", " 출장 중인 사원은 제외합니다."])
    assert shown.count("[1]") == 1
    assert shown.count("[2]") == 1
    assert len(result.citations) == 2


def test_a_quotation_that_is_not_in_the_source_is_counted() -> None:
    _, result = verify(["규칙은 “사원에게 야근 식대를 매번 지급한다”고 한다."])
    assert result.dropped == 1


@given(st.lists(st.integers(1, 9), max_size=20))
def test_how_the_answer_is_cut_into_pieces_does_not_matter(cuts: list[int]) -> None:
    answer = "야근 식대는 13,500원입니다 [1]. 출장 중인 사원은 제외합니다. [2] 끝."
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(answer[at : at + cut])
        at += cut
    pieces.append(answer[at:])
    whole, whole_result = verify([answer])
    shown, result = verify(pieces)
    assert shown == whole
    assert result == whole_result


@given(st.text(max_size=300))
def test_any_answer_yields_only_verbatim_quotes(answer: str) -> None:
    _, result = verify([answer])
    for citation in result.citations:
        assert TEXT[citation.start - 100 : citation.end - 100] == citation.quote

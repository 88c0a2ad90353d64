from __future__ import annotations

from ondol.packs.legal.case_fields import case_fields, punishments

TEXT = (
    "원고 김철수는 2023. 3. 2. 피고 이영희로부터 아파트를 보증금 2억 원에 임차하였다. 대법원 2019다12345 판결과 "
    "민법 제750조, 제751조에 따라 지연손해금 5,000,000원을 구한다. 피고인은 징역 1년 6월에 집행유예 2년, 벌금 300만 원에 처한다."
)


def values(kind: str) -> list[str]:
    return [one.value for one in case_fields(TEXT)[kind]]


def test_fields_are_found_in_one_spelling_at_their_place() -> None:
    assert values("dates") == ["2023-03-02"]
    assert values("amounts")[:2] == ["200000000 KRW", "5000000 KRW"]
    assert values("cases") == ["2019다12345"]
    assert len(values("articles")) == 2
    assert values("parties")[:2] == ["원고 김철수", "피고 이영희"]
    for found in case_fields(TEXT).values():
        for one in found:
            assert TEXT[one.start : one.end].strip() == one.text.strip()


def test_punishments_have_amount_and_suspension() -> None:
    prison, fine = punishments(TEXT)
    assert (prison.kind, prison.amount, prison.suspended) == ("prison", 18, True)
    assert (fine.kind, fine.amount, fine.unit) == ("fine", 3_000_000, "won")


def test_nothing_in_nothing() -> None:
    assert not any(case_fields("").values())

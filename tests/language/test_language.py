from __future__ import annotations

import pytest

from ondol.language.language import detect, has_hangul


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("연차 유급휴가는 며칠인가요?", "ko"),
        ("BERT 모델은 무엇인가", "ko"),
        ("How many days of leave do I get?", "en"),
        ("What does 온돌 mean in English?", "en"),
        ("Привет, мир", "other"),
        ("日本国憲法", "other"),
        ("12,500 … !", "other"),
        ("", "other"),
    ],
)
def test_detect_goes_by_scripts(text: str, language: str) -> None:
    assert detect(text) == language


def test_detect_samples_a_long_text() -> None:
    assert detect("가" * 10_000_000) == "ko"
    assert detect("plain words " * 500_000) == "en"


def test_has_hangul() -> None:
    assert has_hangul("the 온돌 floor")
    assert not has_hangul("the floor 床")

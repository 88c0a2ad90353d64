"""Whether Hangul reads like Korean: by its commonest syllables and by those that it never uses."""

from __future__ import annotations

from ondol.documents.readers.plausible import hangul_shape

KOREAN = "사용자는 근로자에게 휴가를 주어야 하며 그 기간에 통상임금을 지급한다. " * 4
NOISE = (
    "킜킰톁톁킰 킜킰톁톈톂킰킱 킘킷킼 킛킸톁톂 킴킾킺톃킼 킟킾킴킿 킔킰톂킰 킛킸톂 킠킰킷톀킰킱 "
)


def test_korean_is_plausible() -> None:
    shape = hangul_shape(KOREAN)
    assert not shape.garbled
    assert shape.rare == 0
    assert shape.common > 0.4
    assert hangul_shape("no Hangul at all").syllables == 0


def test_syllables_that_korean_never_uses_are_counted() -> None:
    assert hangul_shape("가뷁나똠").rare == 0.5
    shape = hangul_shape(NOISE)
    assert shape.odd
    assert shape.garbled
    assert shape.common == 0.0


def test_noise_among_common_syllables_is_seen_too() -> None:
    mixed = "".join(
        one + other
        for one, other in zip("이다는에의을하가고은지로" * 3, "뷁쀍똠펲햏쿳" * 6, strict=True)
    )
    assert hangul_shape(mixed).common > 0.4
    assert hangul_shape(mixed).garbled

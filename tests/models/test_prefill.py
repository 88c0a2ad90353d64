"""Prefill chunks suit the speed, so that nobody waits much longer than a quarter of a second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.models.generator_form import LARGEST, SMALLEST, STEP, chunk_tokens, estimated_rate


@pytest.mark.parametrize(
    ("rate", "tokens"), [(1, 32), (75, 32), (157, 32), (204, 64), (370, 96), (1e6, 512)]
)
def test_a_chunk_is_about_a_quarter_of_a_second(rate: float, tokens: int) -> None:
    assert chunk_tokens(rate) == tokens


@given(rate=st.floats(0, 1e9))
def test_a_chunk_is_a_bounded_multiple(rate: float) -> None:
    found = chunk_tokens(rate)

    assert SMALLEST <= found <= LARGEST
    assert found % STEP == 0


def test_the_estimate_follows_weights_and_cores() -> None:
    assert estimated_rate(491_400_064, cores=2) == pytest.approx(203, rel=0.02)
    assert estimated_rate(1_117_320_768, cores=4) == pytest.approx(179, rel=0.02)
    assert estimated_rate(98_362_432, cores=2) == pytest.approx(370, rel=0.1)
    assert estimated_rate(491_400_064, cores=2, native=True) > estimated_rate(491_400_064, cores=2)
    assert estimated_rate(0, cores=2) == estimated_rate(1_000_000_000, cores=2)

"""Channel quantisation: bounded error, zeros stay zero, and the CPU decides the range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ondol.kernels.processor import weight_levels
from ondol.kernels.quantize import quantise_channels

FINITE = st.floats(-100, 100, width=32)


@given(weights=arrays(np.float32, (3, 8), elements=FINITE), levels=st.sampled_from([63, 127]))
def test_every_weight_is_within_half_a_step(
    weights: np.ndarray[tuple[int, int], np.dtype[np.float32]], levels: int
) -> None:
    quantised = quantise_channels(weights, levels=levels)
    assert quantised.values.shape == (8, 3)
    assert int(np.abs(quantised.values.astype(int)).max()) <= levels
    restored = (quantised.values * quantised.scales).T
    assert (np.abs(restored - weights) <= quantised.scales[:, None] * 0.501).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    quantised = quantise_channels(np.zeros((2, 4), np.float32))
    assert not quantised.values.any()
    assert np.isfinite(quantised.scales).all()


@pytest.mark.parametrize(
    ("cpuinfo", "levels"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni", 127),
        ("flags\t\t: fpu avx2 avx_vnni", 127),
        ("flags\t\t: fpu avx2", 63),
        ("Features\t: fp asimd", 127),
        (None, 127),
    ],
)
def test_cpus_that_overflow_get_a_narrower_range(
    tmp_path: Path, cpuinfo: str | None, levels: int
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(f"processor\t: 0\n{cpuinfo}\n")
    assert weight_levels(cpuinfo=path) == levels

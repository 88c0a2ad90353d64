"""Rounding to 8 bits: bounded errors, made up for where inputs go together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ondol.kernels.bert import FloatArray
from ondol.kernels.rounding import quantise_channels, round_weights, smoothing

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


def test_rounding_makes_up_for_its_errors_where_inputs_go_together() -> None:
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((64, 8))
    inputs = (rng.standard_normal((500, 8)) @ mixing.T).astype(np.float32)
    weights = rng.standard_normal((16, 64)).astype(np.float32)
    moments = (inputs.T @ inputs).astype(np.float64) / len(inputs)
    rounded = round_weights(weights, moments)
    nearest = np.rint(weights / rounded.scales[:, None])
    exact = inputs @ weights.T

    def error(values: FloatArray) -> float:
        return float(np.square(inputs @ (values * rounded.scales[:, None]).T - exact).mean())

    assert np.abs(rounded.values).max() <= 127
    assert error(rounded.values.astype(np.float32)) < 0.5 * error(nearest)


def test_rounding_refuses_moments_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        round_weights(np.ones((2, 2), np.float32), np.full((2, 2), np.nan))


def test_smoothing_scales_a_channel_of_large_inputs_down() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((100, 32)).astype(np.float32)
    inputs[:, 3] *= 50
    factors = smoothing(np.abs(inputs).max(axis=0), rng.standard_normal((8, 32)).astype(np.float32))
    assert factors[3] == factors.min()
    assert factors[3] < 0.3 * np.median(factors)

"""Fitting 8-bit activations: ranges, splitting, and the error that is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.kernels.synthetic_weights import Array, e5s1_bytes

from ondol.kernels.calibration import calibration_texts
from ondol.kernels.calibration.static_int8 import LEVELS, calibrate, fit_range
from ondol.kernels.e5s1 import read_e5s1


def inputs(*, outlier: float = 1.0) -> tuple[Array, Array]:
    """Return 400 tokens of 24 channels, the fourth ``outlier`` times as large, and weights."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((400, 24)).astype(np.float32)
    x[:, 3] *= outlier
    return x, rng.standard_normal((16, 24)).astype(np.float32)


def restored(x: Array, weights: Array, *, extra_rows: int = 0) -> float:
    """Return the relative error of the product of quantised inputs with 8-bit weights."""
    found = fit_range(x, weights=weights, extra_rows=extra_rows)
    stepped = weights[:, found.source] * found.step
    scales = np.abs(stepped).max(axis=1, keepdims=True) / 127
    product = found.quantised(x) @ (np.rint(stepped / scales) * scales).T
    exact = x @ weights.T
    difference = product - exact
    return float((difference - difference.mean(axis=0)).std() / exact.std())


def test_every_value_seen_lies_within_its_range() -> None:
    x, weights = inputs(outlier=30)
    found = fit_range(x, weights=weights)
    steps = np.rint((x[:, found.source] - found.low) / found.step)
    assert steps.min() >= 0
    assert steps.max() <= LEVELS


def test_an_outlier_channel_does_not_coarsen_the_others() -> None:
    x, weights = inputs(outlier=30)
    found = fit_range(x, weights=weights)
    assert found.step[3] > 5 * np.delete(found.step, 3).max()
    assert restored(x, weights) < 0.03


def test_splitting_a_large_channel_makes_its_steps_finer() -> None:
    x, weights = inputs(outlier=30)
    whole, split = (fit_range(x, weights=weights, extra_rows=n) for n in (0, 8))
    assert (split.source == 3).sum() > 1
    assert split.step[split.source == 3].max() < whole.step[3] / 2
    assert restored(x, weights, extra_rows=8) < restored(x, weights)


def test_the_rows_of_a_split_channel_meet() -> None:
    x, weights = inputs(outlier=30)
    found = fit_range(x, weights=weights, extra_rows=8)
    rows = np.flatnonzero(found.source == 3)
    tops = found.low[rows] + LEVELS * found.step[rows]
    np.testing.assert_allclose(tops[:-1], found.low[rows][1:], rtol=1e-5, atol=1e-5)


def test_a_rectified_channel_keeps_its_floor_and_gets_room_above() -> None:
    x, weights = inputs()
    x = np.maximum(x, 0)
    x[:, 5] *= 0.01
    found = fit_range(x, weights=weights, rectified=True)
    assert (found.low == x.min(axis=0)).all()
    assert found.step[5] * LEVELS > 1


def test_a_constant_channel_is_no_trouble() -> None:
    x, weights = inputs()
    x[:, 7] = 0
    assert restored(x, weights) < 0.02


def test_nothing_to_calibrate_on_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tiny.bin"
    path.write_bytes(e5s1_bytes())
    with pytest.raises(ValueError, match="calibrate"):
        calibrate(read_e5s1(path), [])


def test_the_texts_are_of_both_languages_and_of_many_lengths() -> None:
    texts, english = calibration_texts(), calibration_texts(korean=False)
    assert len(texts) >= 60
    assert len(english) >= 25
    assert all(text.isascii() for text in english)
    lengths = sorted(map(len, texts))
    assert lengths[0] <= 5
    assert lengths[-1] >= 400

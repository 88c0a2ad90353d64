"""The matrix products that the roofline is made of."""

from __future__ import annotations

from ondol.kernels.gemm_peaks import Gemm, measure_gemms, peaks


def test_every_library_here_multiplies_at_every_shape() -> None:
    found = list(measure_gemms(threads=1, shapes=((16, 32), (32, 16)), rows=8, runs=2))
    assert {(gemm.k, gemm.n) for gemm in found} == {(16, 32), (32, 16)}
    assert {(gemm.library, gemm.kind) for gemm in found} >= {
        ("numpy", "fp32"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
    }
    assert all(gemm.gflops > 0 for gemm in found)


def test_a_peak_is_the_best_of_its_kind() -> None:
    found = peaks(
        [
            Gemm("a", "fp32", 1, 1, 1, 5.0),
            Gemm("b", "fp32", 1, 1, 1, 7.0),
            Gemm("a", "int8", 1, 1, 1, 9.0),
        ]
    )
    assert found == {"fp32": 7.0, "int8": 9.0}

"""The machine's own matrix-multiply peak: what is the most any encoder could get out of it.

Measures GEMMs of encoder shapes with each library that is installed, best of several runs, in 10^9
multiply-add operations x 2 per second. Weights are constant, so that a library may pack them ahead,
as it does when it serves. Knows no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from ondol.kernels.processor import cpu_flags

Kind = Literal["fp32", "bf16", "int8"]
KINDS: tuple[Kind, ...] = ("fp32", "bf16", "int8")

ROWS = 2048
"""Tokens of a batch: 16 texts of 128."""

SHAPES = ((384, 384), (384, 1536), (1536, 384))
"""(k, n) of the linear layers of a small encoder: attention, and the two of the feed-forward."""

RUNS = 12
"""The best of these counts: what else the machine does can only slow a run down."""

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Gemm:
    """One measured product ``(m, k) x (k, n)``; ``gflops`` counts two operations a multiply-add."""

    library: str
    kind: Kind
    m: int
    k: int
    n: int
    gflops: float


def measure_gemms(
    *, threads: int, shapes: Sequence[tuple[int, int]] = SHAPES, rows: int = ROWS, runs: int = RUNS
) -> Iterator[Gemm]:
    """Yield the peak of every library, kind and shape, ``threads`` threads each.

    numpy's threads are those of its BLAS. bf16 is left out where the processor has no instructions
    for it and a library would only pretend.
    """
    for k, n in shapes:
        for library, kind, make in _products(threads):
            run = make(rows, k, n)
            yield Gemm(library, kind, rows, k, n, 2.0 * rows * k * n / _best(run, runs) / 1e9)


def peaks(gemms: Sequence[Gemm]) -> dict[Kind, float]:
    """Return the best GFLOP/s per kind that any library reached at any shape."""
    rates = {kind: [gemm.gflops for gemm in gemms if gemm.kind == kind] for kind in KINDS}
    return {kind: max(measured) for kind, measured in rates.items() if measured}


def _products(threads: int) -> list[tuple[str, Kind, Callable[[int, int, int], Run]]]:
    products: list[tuple[str, Kind, Callable[[int, int, int], Run]]] = [
        ("numpy", "fp32", _numpy),
        ("onnxruntime", "fp32", lambda m, k, n: _onnx(m, k, n, "fp32", threads)),
        ("onnxruntime", "int8", lambda m, k, n: _onnx(m, k, n, "int8", threads)),
    ]
    if find_spec("openvino") is None:
        return products
    kinds: tuple[Kind, ...] = KINDS
    if not {"avx512_bf16", "amx_bf16"} & cpu_flags():
        kinds = ("fp32", "int8")
    for kind in kinds:
        products.append(("openvino", kind, _openvino_maker(kind, threads)))
    return products


def _best(run: Run, runs: int) -> float:
    run()
    seconds = []
    for _ in range(runs):
        before = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - before)
    return min(seconds)


def _numpy(m: int, k: int, n: int) -> Run:
    random = np.random.default_rng(0)
    left = random.standard_normal((m, k), dtype=np.float32)
    right = random.standard_normal((k, n), dtype=np.float32)
    out = np.empty((m, n), np.float32)
    return lambda: np.matmul(left, right, out=out)


def _onnx(m: int, k: int, n: int, kind: Kind, threads: int) -> Run:
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    if kind == "int8":
        op, kind_in, kind_out = "MatMulInteger", TensorProto.UINT8, TensorProto.INT32
        left: Any = random.integers(0, 255, (m, k), dtype=np.uint8)
        right: Any = random.integers(-63, 64, (k, n), dtype=np.int8)
    else:
        op, kind_in, kind_out = "MatMul", TensorProto.FLOAT, TensorProto.FLOAT
        left = random.standard_normal((m, k), dtype=np.float32)
        right = random.standard_normal((k, n), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["a", "b"], ["c"])],
        "gemm",
        [helper.make_tensor_value_info("a", kind_in, [m, k])],
        [helper.make_tensor_value_info("c", kind_out, [m, n])],
        [numpy_helper.from_array(right, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"a": left})


def _openvino_maker(kind: Kind, threads: int) -> Callable[[int, int, int], Run]:
    return lambda m, k, n: _openvino(m, k, n, kind, threads)


def _openvino(m: int, k: int, n: int, kind: Kind, threads: int) -> Run:
    """A MatMul as OpenVINO's CPU plugin runs it; int8 by its dequantise-then-multiply pattern."""
    from ondol.kernels.openvino_library import openvino

    ov = openvino()
    ops = ov.opset13
    random = np.random.default_rng(0)
    if kind == "int8":
        left: Any = random.integers(0, 255, (m, k), dtype=np.uint8)
        weights = random.integers(-127, 128, (n, k), dtype=np.int8)
        given = ops.parameter([m, k], np.uint8)
        activations = ops.multiply(ops.convert(given, "f32"), ops.constant(np.float32(0.01)))
        scales = ops.constant(np.full((n, 1), 0.01, np.float32))
        right = ops.multiply(ops.convert(ops.constant(weights), "f32"), scales)
        product = ops.matmul(activations, right, False, True)
    else:
        left = random.standard_normal((m, k), dtype=np.float32)
        given = ops.parameter([m, k], np.float32)
        weights_f = random.standard_normal((n, k), dtype=np.float32)
        product = ops.matmul(given, ops.constant(weights_f), False, True)
    compiled = ov.Core().compile_model(
        ov.Model([product], [given]),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32",
        },
    )
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(left))
    return lambda: request.infer()

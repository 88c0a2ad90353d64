"""The OpenVINO graphs against an independent NumPy forward pass, on tiny synthetic encoders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.kernels.bert_reference import ReferenceBert, read_reference
from tests.kernels.synthetic_weights import (
    HIDDEN,
    VOCAB,
    Array,
    e5s1_bytes,
    random_tensors,
    write_safetensors,
)

from ondol.core.types import Encoded
from ondol.kernels.bert import BertWeights
from ondol.kernels.calibration.static_int8 import calibrate
from ondol.kernels.e5s1 import read_e5s1
from ondol.kernels.openvino_graph import Precision, build_openvino
from ondol.kernels.openvino_library import openvino
from ondol.kernels.safetensors import read_safetensors

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")

TEXTS = [[3, 5, 7, 9, 11], [2, 4], [1, 39, 38, 37, 36, 35, 34, 33, 20, 19]]


def run(model: Any, texts: Sequence[Sequence[int]], *, types: int = 0, longest: int = 0) -> Array:
    """Return the model's rows in float32; ``types`` is the segment of every second token."""
    compiled = openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    shape = (len(texts), max(longest, *map(len, texts)))
    ids, mask, segments = (np.zeros(shape, np.int32) for _ in range(3))
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
        segments[row, 1 : len(text) : 2] = types
    feeds = [ids, mask, segments][: len(compiled.inputs)]
    return np.array(compiled(feeds)[0])


def random_items(count: int = 40) -> list[Encoded]:
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, VOCAB, rng.integers(2, 20)).tolist() for _ in range(count)]
    return [Encoded(ids=ids, type_ids=[0] * len(ids)) for ids in texts]


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def worst(rows: Array, reference: ReferenceBert) -> float:
    return min(cosine(r, reference.sentence(t)) for r, t in zip(rows, TEXTS, strict=True))


@pytest.fixture
def e5s1(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.bin"
    path.write_bytes(e5s1_bytes())
    return path


def test_fp32_equals_the_numpy_forward_pass_packed_words_and_all(e5s1: Path) -> None:
    reference = read_reference(e5s1)
    rows = run(build_openvino(read_e5s1(e5s1), precision="fp32"), TEXTS)
    for row, text in zip(rows, TEXTS, strict=True):
        np.testing.assert_allclose(row, reference.sentence(text), atol=2e-5)


def test_the_first_token_can_stand_for_the_text(e5s1: Path) -> None:
    rows = run(build_openvino(read_e5s1(e5s1), precision="fp32", pooling="cls"), TEXTS)
    expected = read_reference(e5s1).hidden_states(TEXTS[2])[0]
    np.testing.assert_allclose(rows[2], expected, atol=5e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-weights"])
def test_padding_changes_nothing(e5s1: Path, precision: Precision) -> None:
    weights = read_e5s1(e5s1)
    static = calibrate(weights, random_items()) if precision == "int8" else None
    model = build_openvino(weights, precision=precision, static=static)
    short, long = run(model, TEXTS), run(model, TEXTS, longest=20)
    assert min(cosine(a, b) for a, b in zip(short, long, strict=True)) >= 0.99999


def test_static_int8_is_close_to_the_reference(e5s1: Path) -> None:
    weights = read_e5s1(e5s1)
    model = build_openvino(weights, precision="int8", static=calibrate(weights, random_items()))
    assert worst(run(model, TEXTS), read_reference(e5s1)) >= 0.999


def test_int8_weights_are_close_to_the_reference(e5s1: Path) -> None:
    rows = run(build_openvino(read_e5s1(e5s1), precision="int8-weights"), TEXTS)
    assert worst(rows, read_reference(e5s1)) >= 0.999


def test_the_word_table_is_stored_as_it_came(e5s1: Path) -> None:
    model = build_openvino(read_e5s1(e5s1), precision="fp32")
    shapes = {
        (tuple(node.get_output_shape(0)), node.get_element_type().get_type_name())
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
    }
    assert ((VOCAB, HIDDEN // 2), "u8") in shapes
    assert not any(shape == (VOCAB, HIDDEN) for shape, _ in shapes)


def test_a_reranker_tells_the_texts_of_a_pair_apart(tmp_path: Path) -> None:
    weights = classifier(tmp_path)
    model = build_openvino(weights, precision="fp32", pooling="cls")
    apart, together = run(model, TEXTS, types=1), run(model, TEXTS)
    assert apart.shape == (3, 1)
    assert np.abs(apart - together).max() > 1e-3


def classifier(folder: Path) -> BertWeights:
    rng = np.random.default_rng(5)
    head = {
        "bert.pooler.dense.weight": rng.standard_normal((HIDDEN, HIDDEN)),
        "bert.pooler.dense.bias": rng.standard_normal(HIDDEN),
        "classifier.weight": rng.standard_normal((1, HIDDEN)),
        "classifier.bias": rng.standard_normal(1),
    }
    tensors = random_tensors()
    tensors["emb.type"] *= 10
    write_safetensors(folder, tensors)
    plain = read_safetensors(folder / "model.safetensors", config=folder / "config.json")
    from dataclasses import replace

    values = {
        "head.d.w": head["bert.pooler.dense.weight"],
        "head.d.b": head["bert.pooler.dense.bias"],
        "head.o.w": head["classifier.weight"],
        "head.o.b": head["classifier.bias"],
    }
    found = {name: value.astype(np.float32) for name, value in values.items()}
    return BertWeights(
        shape=replace(plain.shape, classifier=True),
        matrix=lambda name: found[name] if name in found else plain.matrix(name),
        vector=lambda name: found[name] if name in found else plain.vector(name),
    )


def test_int8_without_calibration_is_refused(e5s1: Path) -> None:
    with pytest.raises(ValueError, match="calibrated"):
        build_openvino(read_e5s1(e5s1), precision="int8")


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys; from ondol.kernels.openvino_library import openvino; openvino();"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry') and sys.modules[m]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

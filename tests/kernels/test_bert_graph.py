"""The built ONNX graphs against an independent NumPy forward pass, on tiny synthetic encoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import pytest
from tests.kernels.bert_reference import ReferenceBert, read_reference
from tests.kernels.synthetic_weights import (
    EPS,
    HEADS,
    HIDDEN,
    LAYERS,
    Array,
    e5s1_bytes,
    random_tensors,
    write_safetensors,
)

from ondol.kernels.bert import BertWeights
from ondol.kernels.bert_graph import build_encoder
from ondol.kernels.e5s1 import read_e5s1
from ondol.kernels.safetensors import read_safetensors

TEXTS = [[3, 5, 7, 9, 11], [2, 4], [1, 39, 38, 37, 36, 35, 34, 33, 20, 19]]


def run(
    weights: BertWeights,
    texts: Sequence[Sequence[int]],
    *,
    output: str,
    precision: Literal["fp32", "int8"] = "fp32",
    **options: Any,
) -> Array:
    graph = build_encoder(weights, precision=precision, **options)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    longest = max(map(len, texts))
    ids = np.zeros((len(texts), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    wanted = {node.name: feeds[node.name] for node in session.get_inputs()}
    return np.asarray(session.run([output], wanted)[0])


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.fixture
def e5s1(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.bin"
    path.write_bytes(e5s1_bytes())
    return path


def test_reference_form_equals_the_numpy_forward_pass(e5s1: Path) -> None:
    reference = read_reference(e5s1)
    sentences = run(read_e5s1(e5s1), TEXTS, output="sentence_embedding")
    for row, text in zip(sentences, TEXTS, strict=True):
        np.testing.assert_allclose(row, reference.sentence(text), atol=2e-5)


def test_hidden_states_are_the_reference_s_token_by_token(e5s1: Path) -> None:
    states = run(read_e5s1(e5s1), TEXTS, output="last_hidden_state")
    expected = read_reference(e5s1).hidden_states(TEXTS[2])
    np.testing.assert_allclose(states[2], expected, atol=5e-5)


def test_int8_form_stays_close_to_the_reference(e5s1: Path) -> None:
    reference = read_reference(e5s1)
    rows = run(read_e5s1(e5s1), TEXTS, output="sentence_embedding", precision="int8")
    assert min(cosine(r, reference.sentence(t)) for r, t in zip(rows, TEXTS, strict=True)) > 0.998


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_text_s_vector_does_not_depend_on_its_batch(
    e5s1: Path, precision: Literal["fp32", "int8"]
) -> None:
    weights = read_e5s1(e5s1)
    together = run(weights, TEXTS, output="sentence_embedding", precision=precision)
    for row, text in zip(together, TEXTS, strict=True):
        alone = run(weights, [text], output="sentence_embedding", precision=precision)[0]
        np.testing.assert_allclose(row, alone, atol=2e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_bytes_depend_only_on_the_weights(
    e5s1: Path, precision: Literal["fp32", "int8"]
) -> None:
    weights = read_e5s1(e5s1)
    graphs = [build_encoder(weights, precision=precision) for _ in range(2)]
    assert graphs[0].SerializeToString() == graphs[1].SerializeToString()


def test_narrow_weights_for_cpus_without_vnni_are_still_close(e5s1: Path) -> None:
    weights = read_e5s1(e5s1)
    reference = read_reference(e5s1)
    rows = run(weights, TEXTS, output="sentence_embedding", precision="int8", levels=63)
    assert min(cosine(r, reference.sentence(t)) for r, t in zip(rows, TEXTS, strict=True)) > 0.995


@pytest.mark.parametrize(("dtype", "tolerance"), [("F32", 2e-5), ("F16", 5e-3), ("BF16", 5e-2)])
def test_safetensors_weights_of_every_dtype(tmp_path: Path, dtype: str, tolerance: float) -> None:
    tensors = random_tensors()
    write_safetensors(tmp_path, tensors, dtype=dtype)
    weights = read_safetensors(tmp_path / "model.safetensors", config=tmp_path / "config.json")
    reference = ReferenceBert(HIDDEN, LAYERS, HEADS, EPS, tensors)
    rows = run(weights, TEXTS, output="sentence_embedding")
    for row, text in zip(rows, TEXTS, strict=True):
        np.testing.assert_allclose(row, reference.sentence(text), atol=tolerance)


def test_xlm_roberta_counts_positions_after_the_padding_id(tmp_path: Path) -> None:
    tensors = random_tensors()
    write_safetensors(tmp_path, tensors, kind="xlm-roberta")
    weights = read_safetensors(tmp_path / "model.safetensors", config=tmp_path / "config.json")
    reference = ReferenceBert(HIDDEN, LAYERS, HEADS, EPS, tensors)
    first = run(weights, TEXTS, output="sentence_embedding", pooling="cls")
    for row, text in zip(first, TEXTS, strict=True):
        np.testing.assert_allclose(row, reference.hidden_states(text)[0], atol=5e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_reranker_head_gives_one_logit(tmp_path: Path, precision: Literal["fp32", "int8"]) -> None:
    tensors = random_tensors()
    rng = np.random.default_rng(3)
    head = {
        "classifier.dense.weight": rng.standard_normal((HIDDEN, HIDDEN)).astype(np.float32) * 0.3,
        "classifier.dense.bias": rng.standard_normal(HIDDEN).astype(np.float32) * 0.1,
        "classifier.out_proj.weight": rng.standard_normal((1, HIDDEN)).astype(np.float32),
        "classifier.out_proj.bias": np.array([0.25], np.float32),
    }
    write_safetensors(tmp_path, tensors, kind="xlm-roberta", head=head)
    weights = read_safetensors(tmp_path / "model.safetensors", config=tmp_path / "config.json")
    reference = ReferenceBert(HIDDEN, LAYERS, HEADS, EPS, tensors)
    logits = run(weights, TEXTS, output="logits", precision=precision)
    assert logits.shape == (3, 1)
    for row, text in zip(logits, TEXTS, strict=True):
        first = reference.hidden_states(text)[0]
        dense = np.tanh(first @ head["classifier.dense.weight"].T + head["classifier.dense.bias"])
        expected = dense @ head["classifier.out_proj.weight"].T + 0.25
        np.testing.assert_allclose(row, expected, atol=1e-4 if precision == "fp32" else 0.5)

"""Weights read out of ONNX files: exact values, the same outputs, and refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from tests.kernels.bert_reference import ReferenceBert
from tests.kernels.synthetic_onnx import ExportedBert, quantise
from tests.kernels.synthetic_weights import (
    EPS,
    FFN,
    HEADS,
    HIDDEN,
    LAYERS,
    POSITIONS,
    TYPES,
    VOCAB,
    Array,
    random_tensors,
)
from tokenizers import Tokenizer

from ondol.kernels.bert import BertShape, BertWeights, as_float
from ondol.kernels.bert_graph import build_encoder
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.onnx_weights import read_onnx_weights

TEXTS = [[3, 5, 7, 9, 11], [2, 4], [1, 39, 38, 37, 36, 35, 34, 33, 20, 19]]
SHAPE = BertShape(HIDDEN, LAYERS, HEADS, FFN, VOCAB, POSITIONS, TYPES, float(np.float32(EPS)))

# ONNX Runtime's quantiser announces on the root logger that it would like pre-processed graphs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxruntime")


def head(seed: int = 3) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "pooler.dense.weight": rng.standard_normal((HIDDEN, HIDDEN)).astype(np.float32) * 0.3,
        "pooler.dense.bias": rng.standard_normal(HIDDEN).astype(np.float32) * 0.1,
        "classifier.weight": rng.standard_normal((1, HIDDEN)).astype(np.float32),
        "classifier.bias": np.array([0.25], np.float32),
    }


def run(source: str | bytes, ids: Sequence[int], types: Sequence[int], output: str) -> Array:
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    feeds = {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "token_type_ids": np.array([types]),
    }
    wanted = {node.name: feeds[node.name] for node in session.get_inputs()}
    return np.asarray(session.run([output], wanted)[0][0])


def rebuilt(weights: BertWeights) -> bytes:
    data: bytes = build_encoder(weights, precision="fp32").SerializeToString()
    return data


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("norm", ["parts", "whole"])
@pytest.mark.parametrize(
    "reshape", [(None, None, HEADS, HIDDEN // HEADS), (None, None, -1, HIDDEN // HEADS)]
)
def test_a_plain_export_gives_back_every_tensor(
    tmp_path: Path, prefix: str, norm: str, reshape: Sequence[int | None]
) -> None:
    tensors = random_tensors()
    exported = ExportedBert(tensors, prefix=prefix, norm=norm, reshape=reshape)
    weights = read_onnx_weights(exported.write(tmp_path / "model.onnx"))
    assert weights.shape == SHAPE
    for name, expected in tensors.items():
        read = weights.matrix if expected.ndim == 2 else weights.vector
        np.testing.assert_array_equal(as_float(read(name)), expected, err_msg=name)


def stored_values(path: Path, name: str) -> Array:
    """Dequantise by the letter of the format: by initialiser name, without a graph walk."""
    tensors = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer
    }
    values, scale, zero = (
        tensors[f"{name}_{part}"] for part in ("quantized", "scale", "zero_point")
    )
    return np.asarray((values.astype(np.float32) - zero.astype(np.float32)) * scale, np.float32)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_quantised_export_is_dequantised_exactly(tmp_path: Path, per_channel: bool) -> None:
    tensors = random_tensors()
    plain = ExportedBert(tensors).write(tmp_path / "plain.onnx")
    path = quantise(plain, tmp_path / "model.onnx", per_channel=per_channel)
    weights = read_onnx_weights(path)
    assert weights.shape == SHAPE
    expected = stored_values(path, "onnx::MatMul_901").T
    np.testing.assert_array_equal(as_float(weights.matrix("l0.q.w")), expected)
    words = stored_values(path, "embeddings.word_embeddings.weight")
    np.testing.assert_array_equal(as_float(weights.matrix("emb.word")), words)
    for name, original in tensors.items():
        if original.ndim == 2:
            step = np.abs(original).max() / 127
            np.testing.assert_allclose(as_float(weights.matrix(name)), original, atol=1.02 * step)
        else:
            np.testing.assert_array_equal(weights.vector(name), original)


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_rebuilt_graph_gives_the_quantised_file_s_vectors(
    tmp_path: Path, per_channel: bool
) -> None:
    tensors = random_tensors()
    plain = ExportedBert(tensors).write(tmp_path / "plain.onnx")
    path = quantise(plain, tmp_path / "model.onnx", per_channel=per_channel)
    graph = rebuilt(read_onnx_weights(path))
    reference = ReferenceBert(HIDDEN, LAYERS, HEADS, EPS, tensors)
    for ids in TEXTS:
        shipped = run(str(path), ids, [0] * len(ids), "last_hidden_state").mean(axis=0)
        ours = run(graph, ids, [], "sentence_embedding")
        assert cosine(ours, shipped) > 0.998
        assert (
            cosine(ours, reference.sentence(ids)) >= cosine(shipped, reference.sentence(ids)) - 1e-3
        )


@pytest.mark.parametrize("quantised", [True, False])
def test_a_cross_encoder_keeps_its_head_and_its_segments(tmp_path: Path, quantised: bool) -> None:
    path = ExportedBert(random_tensors(), head=head(), prefix="bert.").write(tmp_path / "p.onnx")
    plain = str(path)
    if quantised:
        path = quantise(path, tmp_path / "model.onnx", per_channel=True)
    weights = read_onnx_weights(path)
    assert weights.shape.classifier
    if not quantised:
        np.testing.assert_array_equal(weights.matrix("head.d.w"), head()["pooler.dense.weight"])
        np.testing.assert_array_equal(weights.matrix("head.o.w"), head()["classifier.weight"])
    graph = rebuilt(weights)
    ids, pair = TEXTS[2], [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    expected = run(plain, ids, pair, "logits")
    tolerance = 0.3 if quantised else 1e-5
    np.testing.assert_allclose(run(graph, ids, pair, "logits"), expected, atol=tolerance)
    alone = run(graph, ids, [0] * len(ids), "logits")
    assert not np.allclose(alone, expected, atol=tolerance)


def test_weights_that_are_dequantised_before_use_are_read(tmp_path: Path) -> None:
    tensors = random_tensors()
    exported = ExportedBert(tensors)
    place, stored = next(
        (i, t) for i, t in enumerate(exported.constants) if t.name == "onnx::MatMul_901"
    )
    scale = np.abs(tensors["l0.q.w"]).max(axis=1) / np.float32(127)
    values = np.rint(tensors["l0.q.w"].T / scale).astype(np.int8)
    exported.constants[place : place + 1] = [
        onnx.numpy_helper.from_array(values, "whole"),
        onnx.numpy_helper.from_array(scale, "step"),
    ]
    exported.nodes.insert(
        0, onnx.helper.make_node("DequantizeLinear", ["whole", "step"], [stored.name], axis=1)
    )
    weights = read_onnx_weights(exported.write(tmp_path / "model.onnx"))
    expected = (values.astype(np.float32) * scale).T
    np.testing.assert_array_equal(as_float(weights.matrix("l0.q.w")), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rename": ("embeddings.word_embeddings.weight", "wte")}, "word embeddings"),
        ({"rename": ("encoder.layer.0.attention.self.query.bias", "q0")}, "encoder layers"),
        ({"rename": ("encoder.layer.1.output.LayerNorm.weight", "norm")}, "l1.oln.w"),
        ({"op": ("Erf", "Tanh")}, "exact GELU"),
        ({"op": ("Slice", "CumSum")}, "RoBERTa"),
        ({"reshape": (None, None, 5, 7)}, "heads"),
        ({"labels": 3}, "one logit"),
    ],
)
def test_a_graph_of_another_kind_is_refused(
    tmp_path: Path, change: Mapping[str, Any], reason: str
) -> None:
    odd = head()
    if "labels" in change:
        odd["classifier.weight"] = np.zeros((change["labels"], HIDDEN), np.float32)
        odd["classifier.bias"] = np.zeros(change["labels"], np.float32)
    options = {"reshape": change["reshape"]} if "reshape" in change else {}
    exported = ExportedBert(random_tensors(), head=odd, **options)
    old, new = change.get("rename", ("", ""))
    for tensor in exported.constants:
        tensor.name = new if tensor.name == old else tensor.name
    for node in exported.nodes:
        node.input[:] = [new if name == old else name for name in node.input]
        if node.op_type == change.get("op", ("",))[0]:
            node.op_type = change["op"][1]
    path = exported.write(tmp_path / "model.onnx")
    with pytest.raises(KernelError, match=reason) as caught:
        read_onnx_weights(path).vector("l1.oln.w")
    assert caught.value.hint


def test_a_table_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors()
    tensors["l1.fo.w"] = tensors["l1.fo.w"][:, :-1]
    weights = read_onnx_weights(ExportedBert(tensors).write(tmp_path / "model.onnx"))
    with pytest.raises(KernelError, match=r"l1\.fo\.w has shape"):
        weights.matrix("l1.fo.w")


@pytest.mark.parametrize("data", [b"", b"not a protobuf at all", b"\x08\x08"])
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(KernelError, match=r"model\.onnx"):
        read_onnx_weights(path)


def test_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    path = ExportedBert(random_tensors()).write(tmp_path / "model.onnx")
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(str(path)), str(outside), save_as_external_data=True, size_threshold=0)
    with pytest.raises(KernelError, match="outside the file"):
        read_onnx_weights(outside)


@pytest.fixture(scope="module")
def abstracts(shared_data: Path) -> list[str]:
    lines = (shared_data / "en_scifact_subset/corpus.jsonl").read_text("utf-8").splitlines()[:12]
    return [json.loads(line)["text"] for line in lines]


def tokenizer(folder: Path) -> Tokenizer:
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not here; fetch it with: ondol models pull {folder.name}")
    found = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(128)
    return found


@pytest.mark.model
def test_the_shipped_embedder_gives_its_vectors(models_folder: Path, abstracts: list[str]) -> None:
    folder = models_folder / "bge-small-en-v1.5"
    encodings = tokenizer(folder).encode_batch(abstracts)
    weights = read_onnx_weights(folder / "model.onnx")
    assert (weights.shape.layers, weights.shape.heads, weights.shape.types) == (12, 12, 2)
    graph = build_encoder(weights, precision="fp32", pooling="cls").SerializeToString()
    for e in encodings[:6]:
        shipped = run(str(folder / "model.onnx"), e.ids, e.type_ids, "last_hidden_state")[0]
        assert cosine(shipped, run(graph, e.ids, e.type_ids, "sentence_embedding")) >= 0.99


@pytest.mark.model
def test_the_shipped_reranker_gives_its_logits(models_folder: Path, abstracts: list[str]) -> None:
    folder = models_folder / "ms-marco-minilm-l12-v2"
    pairs = [(text.split(".")[0], other) for text in abstracts[:3] for other in abstracts[:3]]
    encodings = tokenizer(folder).encode_batch(pairs)
    graph = rebuilt(read_onnx_weights(folder / "model.onnx"))
    shipped, ours = (
        np.array([run(source, e.ids, e.type_ids, "logits")[0] for e in encodings])
        for source in (str(folder / "model.onnx"), graph)
    )
    assert np.corrcoef(shipped, ours)[0, 1] > 0.999
    assert np.abs(shipped - ours).max() < 0.5

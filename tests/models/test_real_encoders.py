"""The real small encoders, as pulled: conversion against NumPy, forms against each other, sense."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.kernels.bert_reference import ReferenceBert, read_reference

from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.models.library import ModelFiles, ModelLibrary
from ondol.models.loading import load_encoder

pytestmark = pytest.mark.model

SHIPPED = json.loads(
    (Path(__file__).parents[1] / "data/e5_reference_vectors.json").read_text("utf-8")
)
TEXTS: list[str] = [item["text"] for item in SHIPPED["texts"]]
LEAVE_QUESTION, LEAVE, SEVERANCE, ENGLISH_QUESTION, FLOOR, _ = range(6)

Embed = Callable[[Sequence[str]], FloatMatrix]


def need(folder: Path, model_id: str) -> ModelFiles:
    library = ModelLibrary(folder, offline=True)
    if library.state(model_id) != "ready":
        pytest.skip(f"{model_id} is not in {folder}; fetch it with: ondol models pull {model_id}")
    return library.files(model_id)


def embedder(files: ModelFiles, form: str) -> Embed:
    encoder = load_encoder(files, form=form, threads=2)

    def embed(texts: Sequence[str]) -> FloatMatrix:
        encoded = encoder.tokenize(texts, truncate=False)
        rows = encoder.run([item for item in encoded if isinstance(item, Encoded)])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    return embed


@pytest.fixture(scope="module")
def e5(models_folder: Path) -> ModelFiles:
    return need(models_folder, "multilingual-e5-small")


@pytest.fixture(scope="module")
def fp32(e5: ModelFiles) -> Embed:
    return embedder(e5, "onnx:fp32")


@pytest.fixture(scope="module")
def int8(e5: ModelFiles) -> Embed:
    return embedder(e5, "auto")


@pytest.fixture(scope="module")
def reference(e5: ModelFiles) -> ReferenceBert:
    return read_reference(e5.folder / "e5-small-q4.bin")


def test_the_reference_form_is_the_numpy_forward_pass(
    e5: ModelFiles, fp32: Embed, reference: ReferenceBert
) -> None:
    encoder = load_encoder(e5, form="onnx:fp32", threads=1)
    rows = fp32(TEXTS)
    for row, item in zip(rows, encoder.tokenize(TEXTS, truncate=False), strict=True):
        assert isinstance(item, Encoded)
        expected = reference.sentence(item.ids)
        assert float(row @ expected / np.linalg.norm(expected)) >= 0.9999


def test_the_reference_form_gives_the_shipped_vectors(fp32: Embed) -> None:
    expected = np.array([item["vector"] for item in SHIPPED["texts"]], np.float32)
    np.testing.assert_allclose(fp32(TEXTS)[:, :16], expected, atol=2e-4)


def test_the_int8_form_is_faithful(fp32: Embed, int8: Embed) -> None:
    cosines = (fp32(TEXTS) * int8(TEXTS)).sum(axis=1)
    assert cosines.min() >= 0.998
    assert cosines.mean() >= 0.9985


def test_int8_vectors_do_not_depend_on_the_batch(int8: Embed) -> None:
    together = int8(TEXTS)
    for row, text in zip(together, TEXTS, strict=True):
        np.testing.assert_allclose(int8([text])[0], row, atol=1e-4)


def test_questions_find_their_passages_across_languages(int8: Embed) -> None:
    vectors = int8(TEXTS)
    korean, english = vectors @ vectors[LEAVE_QUESTION], vectors @ vectors[ENGLISH_QUESTION]
    assert korean[LEAVE] > korean[SEVERANCE] > korean[FLOOR]
    assert english[LEAVE] > english[FLOOR]


def test_minilm_is_faithful_and_sensible(models_folder: Path) -> None:
    files = need(models_folder, "all-minilm-l6-v2")
    texts = ["How long is annual leave?", "Staff get 15 days off a year.", "Bananas are yellow."]
    exact, quick = embedder(files, "onnx:fp32")(texts), embedder(files, "auto")(texts)
    assert (exact * quick).sum(axis=1).min() >= 0.995
    assert quick[0] @ quick[1] > quick[0] @ quick[2]


def test_the_reranker_puts_the_answer_first(models_folder: Path) -> None:
    encoder = load_encoder(need(models_folder, "ms-marco-minilm-l12-v2"), threads=2)
    question = "How many days of paid leave do employees get?"
    documents = ["Employees get 15 days of paid leave.", "Bananas are rich in potassium."]
    encoded = encoder.tokenize([Pair(question, d) for d in documents], truncate=False)
    logits = encoder.run([item for item in encoded if isinstance(item, Encoded)])
    assert logits.shape == (2, 1)
    assert logits[0, 0] > 0 > logits[1, 0]

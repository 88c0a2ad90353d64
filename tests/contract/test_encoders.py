"""What every encoder must do, the fakes and the real models alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ondol.backends.base import Encoder
from ondol.backends.fake_encoder import FakeEmbedder, FakeReranker
from ondol.core.errors import InvalidInput, OndolError, TextTooLong
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.models.library import ModelLibrary
from ondol.models.loading import load_encoder


def _real(model: str) -> object:
    return pytest.param(model, id=model, marks=pytest.mark.model)


EMBEDDERS = [FakeEmbedder, _real("multilingual-e5-small"), _real("all-minilm-l6-v2")]
RERANKERS = [FakeReranker, _real("ms-marco-minilm-l12-v2")]


@pytest.fixture
def encoder(request: pytest.FixtureRequest, models_folder: Path) -> Iterator[Encoder]:
    made = request.param() if callable(request.param) else _load(request.param, models_folder)
    yield made
    made.close()


def _load(model: str, folder: Path) -> Encoder:
    library = ModelLibrary(folder, offline=True)
    if library.state(model) != "ready":
        pytest.skip(f"{model} is not here: ondol models pull {model}")
    return load_encoder(library.files(model), threads=1)


def ready(encoder: Encoder, items: list[str] | list[Pair]) -> list[Encoded]:
    found = encoder.tokenize(items, truncate=True)
    return [item for item in found if isinstance(item, Encoded)]


def unit(rows: FloatMatrix) -> FloatMatrix:
    result: FloatMatrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True)
def test_rows_have_the_promised_shape_and_are_finite(encoder: Encoder) -> None:
    rows = encoder.run(ready(encoder, ["온돌은 따뜻하다", "a warm floor", "짧다"]))
    assert rows.shape == (3, encoder.spec.dimensions)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True)
def test_a_text_has_the_same_vector_whatever_shares_its_batch(encoder: Encoder) -> None:
    texts = ["연차 휴가는 며칠인가요", "shuttle", "아주 긴 문장입니다 " * 40, "숫자 13,500원"]
    together = unit(encoder.run(ready(encoder, texts)))
    alone = unit(np.concatenate([encoder.run(ready(encoder, [text])) for text in texts]))
    assert ((together * alone).sum(axis=1) >= 0.9995).all()


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True)
def test_a_long_text_is_an_error_or_cut_as_asked(encoder: Encoder) -> None:
    long = "very long " * encoder.spec.max_tokens
    (refused,) = encoder.tokenize([long], truncate=False)
    assert isinstance(refused, TextTooLong)
    assert str(encoder.spec.max_tokens) in refused.message
    assert encoder.run(ready(encoder, [long])).shape[0] == 1


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True)
def test_one_bad_text_fails_alone_and_in_its_place(encoder: Encoder) -> None:
    found = encoder.tokenize(["good", "bad \ud800 surrogate", "also good"], truncate=False)
    kinds = [isinstance(item, OndolError) for item in found]
    assert kinds in ([False, True, False], [False, False, False])
    assert not kinds[1] or isinstance(found[1], InvalidInput)


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True)
def test_near_texts_are_nearer_than_far_ones(encoder: Encoder) -> None:
    rows = unit(
        encoder.run(
            ready(
                encoder,
                [
                    "the shuttle bus leaves at eight",
                    "when does the shuttle bus leave",
                    "a recipe for kimchi stew",
                ],
            )
        )
    )
    assert rows[0] @ rows[1] > rows[0] @ rows[2]


@pytest.mark.parametrize("encoder", RERANKERS, indirect=True)
def test_a_reranker_puts_the_answer_first(encoder: Encoder) -> None:
    query = "when does the shuttle bus leave"
    documents = [
        "Lunch is served at noon.",
        "The shuttle bus leaves at eight.",
        "Guests need a badge.",
    ]
    scores = encoder.run(ready(encoder, [Pair(query, document) for document in documents]))
    assert scores.shape == (3, 1)
    assert int(scores[:, 0].argmax()) == 1
    alone = [encoder.run(ready(encoder, [Pair(query, d)]))[0, 0] for d in documents]
    assert [int(i) for i in np.argsort(alone)] == [int(i) for i in np.argsort(scores[:, 0])]

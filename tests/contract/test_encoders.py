"""What every encoder must do, the fakes and the real models in every form that can run here alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondol.backends.fake_encoder import FakeEmbedder, FakeReranker
from ondol.backends.protocols import EncoderBackend
from ondol.core.errors import InvalidInput, OndolError, TextTooLong
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.models.catalogue import entry
from ondol.models.library import ModelLibrary
from ondol.models.loading import available_forms, load_encoder, reference_form

LEAST_BATCH_MATE = 0.9995
LEAST_FIDELITY = 0.97

TEXTS = [
    "연차 휴가는 며칠인가요",
    "shuttle",
    "아주 긴 문장입니다 " * 40,
    "숫자 13,500원",
    "The tenant may terminate the lease with sixty days of notice.",
    "퇴직금은 계속근로기간 1년에 대하여 30일분 이상의 평균임금이다.",
    "Pressure rises along the wall until the flow separates from it.",
    "가격 대비 성능이 좋고 배터리가 오래갑니다.",
]
ENGLISH = [text for text in TEXTS if text.isascii()] + [
    "Great location, tiny rooms, breakfast until nine.",
    "Take two tablets every six hours.",
    "server returned 502, upstream timed out",
    "A hash table keeps every key in a bucket. " * 12,
]
QUERY = "when does the shuttle bus leave"
DOCUMENTS = [
    "Lunch is served at noon.",
    "The shuttle bus leaves at eight.",
    "Guests need a badge.",
    "Buses to the airport run every hour, also at night. " * 8,
]

MARKS = [pytest.mark.model, pytest.mark.timeout(600)]
"""Making a form for the first time may take minutes on a busy machine."""


@dataclass(frozen=True)
class Real:
    """A model of the catalogue in one form."""

    model: str
    form: str


Subject = Real | Callable[[], EncoderBackend]


def _real(model: str) -> list[Any]:
    return [
        pytest.param(Real(model, form), id=f"{model}-{form}", marks=MARKS)
        for form in available_forms(entry(model))
    ]


REAL_EMBEDDERS = [*_real("multilingual-e5-small"), *_real("all-minilm-l6-v2")]
REAL_RERANKERS = _real("ms-marco-minilm-l12-v2")
EMBEDDERS = [FakeEmbedder, *REAL_EMBEDDERS]
RERANKERS = [FakeReranker, *REAL_RERANKERS]


@pytest.fixture(scope="module")
def encoder(request: pytest.FixtureRequest) -> Iterator[EncoderBackend]:
    subject: Subject = request.param
    if isinstance(subject, Real):
        made = _load(subject, request.getfixturevalue("models_folder"))
    else:
        made = subject()
    yield made
    made.close()


def _load(subject: Real, folder: Path) -> EncoderBackend:
    library = ModelLibrary(folder, offline=True)
    if library.state(subject.model) != "ready":
        pytest.skip(f"{subject.model} is not here: ondol models pull {subject.model}")
    if subject.form.partition("@")[2].startswith("cuda"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    return load_encoder(library.files(subject.model), form=subject.form, threads=1)


def ready(encoder: EncoderBackend, items: list[str] | list[Pair]) -> list[Encoded]:
    found = encoder.tokenize(items, truncate=True)
    return [item for item in found if isinstance(item, Encoded)]


def unit(rows: FloatMatrix) -> FloatMatrix:
    result: FloatMatrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True, scope="module")
def test_rows_have_the_promised_shape_and_are_finite(encoder: EncoderBackend) -> None:
    rows = encoder.run(ready(encoder, ["온돌은 따뜻하다", "a warm floor", "짧다"]))
    assert rows.shape == (3, encoder.spec.dimensions)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True, scope="module")
def test_a_text_has_the_same_vector_whatever_shares_its_batch(encoder: EncoderBackend) -> None:
    together = unit(encoder.run(ready(encoder, TEXTS)))
    alone = unit(np.concatenate([encoder.run(ready(encoder, [text])) for text in TEXTS]))
    assert encoder.spec.batch_invariant
    assert ((together * alone).sum(axis=1) >= LEAST_BATCH_MATE).all()


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True, scope="module")
def test_a_long_text_is_an_error_or_cut_as_asked(encoder: EncoderBackend) -> None:
    long = "very long " * encoder.spec.max_tokens
    (refused,) = encoder.tokenize([long], truncate=False)
    assert isinstance(refused, TextTooLong)
    assert str(encoder.spec.max_tokens) in refused.message
    assert encoder.run(ready(encoder, [long])).shape[0] == 1


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True, scope="module")
def test_one_bad_text_fails_alone_and_in_its_place(encoder: EncoderBackend) -> None:
    found = encoder.tokenize(["good", "bad \ud800 surrogate", "also good"], truncate=False)
    kinds = [isinstance(item, OndolError) for item in found]
    assert kinds in ([False, True, False], [False, False, False])
    assert not kinds[1] or isinstance(found[1], InvalidInput)


@pytest.mark.parametrize("encoder", EMBEDDERS, indirect=True, scope="module")
def test_near_texts_are_nearer_than_far_ones(encoder: EncoderBackend) -> None:
    texts = ["the shuttle bus leaves at eight", QUERY, "a recipe for kimchi stew"]
    rows = unit(encoder.run(ready(encoder, texts)))
    assert rows[0] @ rows[1] > rows[0] @ rows[2]


@pytest.mark.parametrize("encoder", REAL_EMBEDDERS, indirect=True, scope="module")
def test_a_real_form_says_what_it_is_and_keeps_to_the_reference(
    encoder: EncoderBackend, models_folder: Path
) -> None:
    spec = encoder.spec
    assert spec.fingerprint
    assert spec.vocabulary > 1000
    korean = "ko" in entry(spec.model).languages
    texts = TEXTS if korean else ENGLISH
    reference = _load(Real(spec.model, reference_form(entry(spec.model))), models_folder)
    expected = unit(reference.run(ready(reference, texts)))
    reference.close()
    cosines = (unit(encoder.run(ready(encoder, texts))) * expected).sum(axis=1)
    assert cosines.mean() >= LEAST_FIDELITY
    assert spec.fingerprint == reference.spec.fingerprint


@pytest.mark.parametrize("encoder", RERANKERS, indirect=True, scope="module")
def test_a_reranker_puts_the_answer_first(encoder: EncoderBackend) -> None:
    pairs = [Pair(QUERY, document) for document in DOCUMENTS]
    scores = encoder.run(ready(encoder, pairs))
    assert scores.shape == (len(DOCUMENTS), 1)
    assert int(scores[:, 0].argmax()) == 1
    alone = [encoder.run(ready(encoder, [pair]))[0, 0] for pair in pairs]
    assert int(np.argmax(alone)) == 1


@pytest.mark.parametrize("encoder", REAL_RERANKERS, indirect=True, scope="module")
def test_a_real_reranker_keeps_to_the_reference(
    encoder: EncoderBackend, models_folder: Path
) -> None:
    pairs = [Pair(QUERY, document) for document in DOCUMENTS]
    reference = _load(
        Real(encoder.spec.model, reference_form(entry(encoder.spec.model))), models_folder
    )
    expected = reference.run(ready(reference, pairs))[:, 0]
    reference.close()
    scores = encoder.run(ready(encoder, pairs))[:, 0]
    cosine = scores @ expected / (np.linalg.norm(scores) * np.linalg.norm(expected))
    assert cosine >= LEAST_FIDELITY

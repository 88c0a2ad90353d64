"""A text's vector does not depend on who shares its batch, through the batcher that serves."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import numpy as np
import pytest

from ondol.core.types import FloatMatrix
from ondol.models.library import ModelLibrary
from ondol.models.loading import load_encoder
from ondol.runtime.encoders.batcher import Batcher, BatcherLimits

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

TEXTS = 2000
LEAST_COSINE = 0.9995
MODELS = ("all-minilm-l6-v2", "multilingual-e5-small")
SAMPLES = (
    ("en_scifact_subset/queries.jsonl", 120),
    ("ko_korquad/queries.jsonl", 500),
    ("en_sentences_restaurant/reviews.jsonl", 600),
    ("ko_reviews_yogiyo/reviews.jsonl", 680),
    ("en_xquad/corpus.jsonl", 30),
    ("ko_korquad/corpus.jsonl", 30),
    ("ko_law_statutes/corpus.jsonl", 40),
)


def mixed_texts(data: Path) -> list[str]:
    """2,000 texts of 3 to some hundred tokens, in no order."""
    chance, texts = random.Random(3), []
    for name, count in SAMPLES:
        lines = (data / name).read_text("utf-8").splitlines()
        texts += [json.loads(line)["text"] for line in chance.sample(lines, count)]
    chance.shuffle(texts)
    assert len(texts) == TEXTS
    return texts


def unit(values: list[object]) -> FloatMatrix:
    rows = np.stack([value for value in values if isinstance(value, np.ndarray)])
    assert len(rows) == len(values), [v for v in values if not isinstance(v, np.ndarray)][:3]
    normed: FloatMatrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


@pytest.mark.parametrize("model", MODELS)
async def test_a_text_has_one_vector_whoever_shares_its_batch(
    model: str, models_folder: Path, shared_data: Path
) -> None:
    """All at once, in requests of random sizes and both classes, and each on its own."""
    texts = mixed_texts(shared_data)
    encoder = load_encoder(ModelLibrary(models_folder, offline=True).files(model), threads=2)
    if not encoder.spec.batch_invariant:
        encoder.close()
        pytest.skip(f"{encoder.spec.form} says that its vectors depend on batch mates")
    batcher = Batcher(encoder, limits=BatcherLimits(queue_seconds=600, queue_requests=TEXTS))
    chance = random.Random(4)
    try:
        requests = []
        at = 0
        while at < TEXTS:
            size = chance.choice((1, 1, 2, 5, 17, 64))
            requests.append((texts[at : at + size], chance.random() < 0.5))
            at += size
        answers = await asyncio.gather(
            *(batcher.submit(part, truncate=True, urgent=urgent) for part, urgent in requests)
        )
        together = unit([value for answer in answers for value in answer.values])
        places = chance.sample(range(TEXTS), 300)
        alone = unit([(await batcher.submit([texts[i]], truncate=True)).values[0] for i in places])
    finally:
        await batcher.close()
    cosines = (together[places] * alone).sum(axis=1)
    assert cosines.min() >= LEAST_COSINE, f"{encoder.spec.form}: least cosine {cosines.min():.6f}"

"""Distillation: a student of fewer layers learns an order, and runs as any reranker does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.lab.tuned_models import WORDS, tiny_model

from ondol.core.clock import ManualClock
from ondol.core.errors import InvalidInput
from ondol.core.types import Encoded, Pair
from ondol.lab.finetune.candidate import candidate_files, make_candidate
from ondol.lab.finetune.faithful import faithful_forms
from ondol.lab.finetune.recipe import Recipe
from ondol.lab.finetune.training_pairs import TrainingItem
from ondol.lab.finetune.weights_file import cut_layers
from ondol.models.library import ModelFiles
from ondol.models.loading import load_encoder
from ondol.models.manifest import read_weights

if TYPE_CHECKING or find_spec("torch"):
    import torch

    from ondol.lab.finetune.losses import DistillationLesson, RankedList, weights_of
    from ondol.lab.finetune.network import TrainableEncoder
    from ondol.lab.finetune.reranker_training import Teacher, train_reranker

    torch.set_num_threads(1)  # tiny products: a second thread only waits

pytestmark = pytest.mark.extras

RECIPE = Recipe(batch=6, epochs=25, rate=3e-3, negatives=3, threads=1, precision="fp32")
ITEMS = [
    TrainingItem(word, (n,), tuple((n + k) % len(WORDS) for k in (3, 7, 11)))
    for n, word in enumerate(WORDS)
]


def student(base: ModelFiles, folder: Path, teacher: ModelFiles | None = None) -> ModelFiles:
    learned = train_reranker(
        base,
        teacher,
        WORDS,
        ITEMS,
        RECIPE,
        keep=1,
        checkpoint=folder / "checkpoint.pt",
        identity="one",
        clock=ManualClock(),
    )
    assert learned.report.last_loss < 0.5 * learned.report.first_loss
    entry = make_candidate(base, learned.tensors, name="student", root=folder, digest="x", keep=1)
    assert entry.role == "reranker"
    return candidate_files(entry, folder)


def first_places(files: ModelFiles) -> float:
    """Return the share of words whose own text the model puts first of four."""
    encoder = load_encoder(files, form="onnx:fp32", threads=1)
    right = 0
    for item in ITEMS:
        pairs = [Pair(item.query, WORDS[at]) for at in (*item.positives, *item.negatives)]
        tokens = [one for one in encoder.tokenize(pairs, truncate=True) if isinstance(one, Encoded)]
        right += int(np.argmax(encoder.run(tokens)[:, 0])) == 0
    encoder.close()
    return right / len(ITEMS)


def test_a_student_learns_the_judged_and_another_learns_from_it(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "models")
    taught = student(base, tmp_path / "first")
    assert read_weights(taught.entry, taught.folder).shape.layers == 1
    assert first_places(taught) > 0.9
    pairs: list[str | Pair] = [Pair(item.query, WORDS[item.positives[0]]) for item in ITEMS]
    found = faithful_forms(taught, pairs, threads=1, max_loss=0.03)
    assert list(found.losses) == ["onnx:int8"]
    assert found.losses["onnx:int8"] < 0.03
    assert first_places(student(base, tmp_path / "second", teacher=taught)) > 0.9


def test_a_teacher_scores_one_query_like_its_encoder(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "models")
    taught = student(base, tmp_path / "first")
    teacher = Teacher(taught, threads=1)
    scores = teacher.scores([Pair("leave", word) for word in WORDS[:5]])
    teacher.close()
    assert len(scores) == 5
    assert sum(weights_of(scores)) == pytest.approx(1)
    assert int(np.argmax(weights_of(scores))) == int(np.argmax(scores))


def test_parts_of_a_batch_add_up(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "models")
    weights = read_weights(base.entry, base.folder)
    lists = [
        RankedList(tuple(Encoded([n + 2, k + 2], [0, 0]) for k in range(3)), (0.5, 0.25, 0.25))
        for n in range(6)
    ]
    found = []
    for tokens in (1000, 7):
        recipe = Recipe(batch=6, part_tokens=tokens, precision="fp32")
        network = TrainableEncoder(weights, pooling="cls", recipe=recipe, head=True)
        loss = DistillationLesson(network, lists, recipe).backward(0)
        found.append((loss, network.trained["l0.q.w"].grad))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert np.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize("keep", [-1, 3])
def test_more_layers_than_there_are_cannot_be_kept(tmp_path: Path, keep: int) -> None:
    base = tiny_model(tmp_path / "models")
    with pytest.raises(InvalidInput, match="layers cannot be kept of 2"):
        cut_layers(read_weights(base.entry, base.folder), keep)

"""Training: the network is the model, gradients in parts are the gradients, a killed run goes on."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.synthetic_weights import VOCAB
from tests.lab.tuned_models import tiny_model

from ondol.core.clock import ManualClock
from ondol.core.errors import ModelError
from ondol.core.types import Encoded
from ondol.kernels.bert import BertWeights
from ondol.kernels.calibration.calibration_statistics import hidden_states
from ondol.lab.finetune.recipe import Recipe, TrainingProgress
from ondol.lab.finetune.training_examples import Batch, Example, TrainingSet
from ondol.lab.finetune.weights_file import with_learned
from ondol.models.manifest import read_weights

if TYPE_CHECKING or find_spec("torch"):
    import torch

    from ondol.lab.finetune.losses import ContrastiveLesson, info_nce
    from ondol.lab.finetune.network import TrainableEncoder
    from ondol.lab.finetune.training_loop import Trainer, TrainingReport, rate_share

    torch.set_num_threads(1)  # tiny products: a second thread only waits

pytestmark = pytest.mark.extras

RECIPE = Recipe(
    batch=4, epochs=6, rate=3e-3, precision="fp32", checkpoint_steps=3, temperature=0.05
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> BertWeights:
    files = tiny_model(tmp_path_factory.mktemp("models"))
    return read_weights(files.entry, files.folder)


def texts(count: int, *, seed: int = 3, longest: int = 12) -> list[Encoded]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        ids = rng.integers(2, VOCAB, int(rng.integers(2, longest + 1))).tolist()
        found.append(Encoded(ids=ids, type_ids=[0] * len(ids)))
    return found


def data(count: int = 8) -> TrainingSet:
    passages = texts(2 * count)
    queries = texts(count, seed=4)
    return TrainingSet(
        passages,
        [Example(q, (n,), (n + count, (n + 1) % count + count)) for n, q in enumerate(queries)],
    )


def network_of(weights: BertWeights, recipe: Recipe = RECIPE) -> TrainableEncoder:
    return TrainableEncoder(weights, pooling="mean", recipe=recipe)


def train(
    weights: BertWeights, folder: Path, recipe: Recipe = RECIPE, **options: object
) -> tuple[TrainableEncoder, TrainingReport]:
    network = network_of(weights, recipe)
    lesson = ContrastiveLesson(network, data(), recipe)
    trainer = Trainer(
        network,
        lesson,
        recipe,
        checkpoint=folder / "checkpoint.pt",
        identity="one",
        **{"clock": ManualClock(), **options},  # type: ignore[arg-type]
    )
    return network, trainer.run()


@pytest.mark.parametrize("first", [0, 1])
def test_untrained_the_network_is_the_model(weights: BertWeights, first: int) -> None:
    items = texts(5)
    network = network_of(weights, replace(RECIPE, layers=2 - first))
    with torch.no_grad():
        ours = network.outputs(network.states(items)).numpy()
    ends = np.cumsum([item.tokens for item in items])
    parts = np.split(hidden_states(weights, items), ends[:-1])
    wanted = np.stack([part.mean(axis=0) for part in parts])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.abs(ours - wanted).max() < 1e-5


def test_gradients_in_parts_are_those_of_the_whole_batch(weights: BertWeights) -> None:
    found = []
    for tokens in (10_000, 30):
        recipe = replace(RECIPE, part_tokens=tokens)
        network = network_of(weights, recipe)
        loss = ContrastiveLesson(network, data(), recipe).backward(0)
        found.append((loss, {n: t.grad.clone() for n, t in network.trained.items()}))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], atol=1e-5), name


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, replace(RECIPE, layers=1), replace(RECIPE, method="lora", rank=4, rate=1e-2)],
    ids=["full", "top", "lora"],
)
def test_training_lowers_the_loss_and_what_it_learned_can_be_written(
    weights: BertWeights, tmp_path: Path, recipe: Recipe
) -> None:
    network, report = train(weights, tmp_path, replace(recipe, epochs=20))
    assert report.steps == report.planned == 40
    assert report.last_loss < report.first_loss * 0.8
    learned = network.learned()
    layers = {name.partition(".")[0] for name in learned}
    assert layers == ({"l1"} if recipe.layers == 1 else {"l0", "l1"})
    items = texts(3)
    with torch.no_grad():
        ours = network.outputs(network.states(items)).numpy()
    again = network_of(with_learned(weights, learned), replace(RECIPE, seed=9))
    with torch.no_grad():
        assert np.allclose(again.outputs(again.states(items)).numpy(), ours, atol=1e-5)


class Killed(Exception):
    pass


@given(st.integers(1, 11))
@settings(max_examples=4, deadline=None)
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    weights: BertWeights, tmp_path_factory: pytest.TempPathFactory, step: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    whole, _ = train(weights, tmp_path_factory.mktemp("whole"))

    def kill(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise Killed

    with pytest.raises(Killed):
        train(weights, folder, told=kill)
    (folder / "checkpoint.pt.part").write_bytes(b"half")
    again, report = train(weights, folder)
    assert report.resumed == step // 3 * 3  # at most checkpoint_steps are lost
    for name, value in whole.learned().items():
        assert np.array_equal(value, again.learned()[name]), name


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_taken(
    weights: BertWeights, tmp_path: Path
) -> None:
    train(weights, tmp_path)
    network = network_of(weights)
    lesson = ContrastiveLesson(network, data(), RECIPE)
    path = tmp_path / "checkpoint.pt"
    other = Trainer(
        network, lesson, RECIPE, checkpoint=path, identity="two", clock=ManualClock()
    ).run()
    assert other.resumed == 0
    path.write_bytes(path.read_bytes()[:500])
    assert train(weights, tmp_path)[1].resumed == 0


def test_the_clock_ends_a_run(weights: BertWeights, tmp_path: Path) -> None:
    clock = ManualClock()
    seen: list[TrainingProgress] = []

    def told(progress: TrainingProgress) -> None:
        seen.append(progress)
        clock.advance(20)

    recipe = replace(RECIPE, minutes=1.0)
    _, report = train(weights, tmp_path, recipe, clock=clock, told=told)
    assert report.steps == 3
    assert report.planned == 12
    # What was spent before counts when it goes on.
    assert train(weights, tmp_path, recipe, clock=clock)[1].steps == 3
    assert seen[-1].seconds_left <= 20


def test_a_loss_that_is_no_number_stops_the_run(weights: BertWeights, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the loss is nan"):
        train(weights, tmp_path, replace(RECIPE, rate=1e30, clip=1e30, epochs=10))


def test_what_may_be_right_is_no_negative() -> None:
    axes = torch.eye(4)
    query = Example(Encoded([1], [0]), (0, 1), related=frozenset({2}))
    batch = Batch((query,), (0,), (0, 1, 2, 3))
    near = torch.stack([axes[0], axes[0], axes[0], axes[1]])
    loss = info_nce(axes[:1], near, batch, temperature=0.1, margin=0.1)
    assert float(loss) == pytest.approx(float(np.log1p(np.exp(-10))), abs=1e-6)
    unjudged = replace(query, positives=(0,), related=frozenset())
    batch = Batch((unjudged,), (0,), (0, 1))
    nearer = torch.stack([axes[1], axes[0]])  # nearer than the right one by more than the margin
    assert float(info_nce(axes[:1], nearer, batch, temperature=0.1, margin=0.1)) == 0
    assert float(info_nce(axes[:1], nearer, batch, temperature=0.1, margin=2.0)) > 9


@given(st.floats(0, 0.999), st.floats(0, 0.9))
def test_the_rate_rises_then_falls_to_nothing(progress: float, warmup: float) -> None:
    share = rate_share(progress, warmup=warmup)
    assert 0 < share <= 1
    assert rate_share(1.0, warmup=warmup) == 0

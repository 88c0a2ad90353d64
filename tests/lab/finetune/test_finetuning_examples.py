"""The order in which examples are gone through, and the parts that batches are cut into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.errors import InvalidInput
from ondol.core.types import Encoded
from ondol.lab.finetune.recipe import Recipe
from ondol.lab.finetune.training_examples import Example, batch_at, batches_per_epoch, parts_of

QUERY = Encoded(ids=[1, 2], type_ids=[0, 0])


def examples(count: int) -> list[Example]:
    return [
        Example(Encoded(ids=[n], type_ids=[0]), (n, n + 100), tuple(range(200, 210)))
        for n in range(count)
    ]


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 2000))
def test_parts_hold_every_item_once_within_the_tokens(lengths: list[int], tokens: int) -> None:
    parts = parts_of(lengths, tokens=tokens)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    for part in parts:
        padded = len(part) * max(lengths[i] for i in part)
        assert padded <= tokens or len(part) == 1


@given(st.integers(2, 40), st.integers(2, 16), st.integers(0, 5))
def test_an_epoch_shows_no_example_twice_and_is_fixed_by_its_seed(
    count: int, size: int, seed: int
) -> None:
    per_epoch = batches_per_epoch(count, batch=size)
    seen = []
    for step in range(per_epoch):
        batch = batch_at(examples(count), step, size=size, negatives=2, seed=seed)
        assert batch == batch_at(examples(count), step, size=size, negatives=2, seed=seed)
        assert set(batch.targets) <= set(batch.passages)
        assert len(set(batch.passages)) == len(batch.passages)
        for one, target in zip(batch.examples, batch.targets, strict=True):
            assert target in one.positives
            seen.append(one.query.ids[0])
    assert len(seen) == len(set(seen))
    assert len(seen) > count - size


def test_epochs_and_seeds_differ() -> None:
    many = examples(32)
    orders = {
        tuple(
            e.query.ids[0] for e in batch_at(many, step, size=32, negatives=0, seed=seed).examples
        )
        for step in range(3)
        for seed in range(3)
    }
    assert len(orders) == 9


def test_a_query_with_two_right_passages_shows_both_in_time() -> None:
    one = [Example(QUERY, (3, 4)), Example(QUERY, (5,))]
    drawn = {
        t for step in range(20) for t in batch_at(one, step, size=2, negatives=0, seed=1).targets
    }
    assert drawn == {3, 4, 5}


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(batch=1), "batch is 1; it must be at least 2"),
        (Recipe(layers=-1), "layers is -1; it must be at least 0"),
        (Recipe(rate=0), "rate is 0; it must be above 0"),
        (Recipe(minutes=-1), "minutes is -1"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(recipe: Recipe, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        recipe.check()


def test_top_layers_are_counted_from_the_last() -> None:
    assert Recipe(layers=0).first_layer(12) == 0
    assert Recipe(layers=4).first_layer(12) == 8
    assert Recipe(layers=6).first_layer(2) == 0

"""The generator that a machine gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.machine import Machine
from ondol.models.catalogue import catalogue
from ondol.models.generator_form import choose_generator

GENERATORS = [model.id for model in catalogue().values() if model.role == "generator"]


def machine(cores: int, gigabytes: float) -> Machine:
    size = int(gigabytes * 1e9)
    return Machine(cores=cores, memory_bytes=size, free_bytes=size, cpu="test")


@pytest.mark.parametrize(
    ("cores", "gigabytes", "chosen"),
    [
        (2, 20, "qwen2.5-coder-1.5b-instruct"),
        (1, 20, "qwen2.5-coder-0.5b-instruct"),
        (4, 8, "qwen2.5-coder-1.5b-instruct"),
        (4, 3, "qwen2.5-coder-0.5b-instruct"),
        (8, 1.1, "smollm2-135m-instruct"),
        (32, 64, "qwen2.5-coder-1.5b-instruct"),
    ],
)
def test_cores_and_memory_decide(cores: int, gigabytes: float, chosen: str) -> None:
    choice = choose_generator(machine(cores, gigabytes))
    assert choice.model_id == chosen
    assert f"{cores} core" in choice.reason


def test_a_large_model_is_used_only_when_it_is_here() -> None:
    available = ["qwen2.5-7b-instruct"]
    assert choose_generator(machine(16, 32), available=available).model_id == available[0]
    assert choose_generator(machine(8, 32), available=available).model_id == available[0]
    assert choose_generator(machine(16, 32)).model_id == "qwen2.5-coder-1.5b-instruct"


def test_a_pulled_model_needs_no_memory_to_spare() -> None:
    pulled = ["qwen2.5-coder-1.5b-instruct"]
    assert choose_generator(machine(4, 2.5), available=pulled).model_id == pulled[0]


def test_what_is_here_is_used_and_the_better_one_named() -> None:
    choice = choose_generator(machine(2, 20), available=["smollm2-135m-instruct"])
    assert choice.model_id == "smollm2-135m-instruct"
    assert "ondol models pull qwen2.5-coder-1.5b-instruct" in choice.reason


@given(
    cores=st.integers(1, 128),
    gigabytes=st.floats(0, 512),
    available=st.sets(st.sampled_from(GENERATORS)),
)
def test_every_machine_gets_a_generator(cores: int, gigabytes: float, available: set[str]) -> None:
    choice = choose_generator(machine(cores, gigabytes), available=available)
    assert choice.model_id in GENERATORS
    assert choice.reason

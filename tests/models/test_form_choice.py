"""Which form wins: named, off, recipe, measured, default; and the reason is said."""

from __future__ import annotations

import pytest

from ondol.models.form_choice import FormChoice, Optimize, choose_form
from ondol.models.profile import Chosen

CPU = ("onnx:int8", "onnx:fp32", "openvino:int8")
GPU = (*CPU, "torch:fp16@cuda")
MEASURED = Chosen(form="openvino:int8", threads=1, token_budget=512, streams=2)


def choice(
    offered: tuple[str, ...] = CPU,
    *,
    wanted: str = "auto",
    optimize: Optimize = "auto",
    measured: Chosen | None = MEASURED,
) -> FormChoice:
    return choose_form(
        offered, reference="onnx:fp32", wanted=wanted, optimize=optimize, measured=measured
    )


@pytest.mark.parametrize("optimize", ["auto", "recipe", "off"])
def test_a_named_form_wins(optimize: Optimize) -> None:
    found = choice(wanted="torch:bf16", optimize=optimize)
    assert found.form == "torch:bf16"
    assert "settings" in found.reason


def test_off_is_the_reference() -> None:
    assert choice(optimize="off").form == "onnx:fp32"


def test_the_recipe_is_half_precision_on_gpu_and_8_bit_on_cpu() -> None:
    assert choice(GPU, optimize="recipe").form == "torch:fp16@cuda"
    assert choice(CPU, optimize="recipe").form == "onnx:int8"
    bare = choice(("onnx:fp32",), optimize="recipe")
    assert bare.form == "onnx:fp32"
    assert "no such form" in bare.reason


def test_auto_is_what_was_measured_here() -> None:
    found = choice()
    assert (found.form, found.threads, found.token_budget) == ("openvino:int8", 2, 512)
    assert "tune" in found.reason


def test_auto_without_a_measurement_is_the_first_and_says_so() -> None:
    found = choice(measured=None)
    assert (found.form, found.threads, found.token_budget) == ("onnx:int8", 0, 0)
    assert "not tuned" in found.reason
